package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// runCluster asks daemons of this host for the reports of all of the site. Each site is shown
// once, however many of its daemons run here.
func (ps psCommand) runCluster(ctx context.Context, out io.Writer) error {
	sockets, err := ps.sockets.find()
	if err != nil {
		return err
	}
	clusters := []report.Cluster{}
	seen := map[string]bool{} // by fsid
	var errs []error
	for _, s := range sockets {
		c, err := askCluster(ctx, s, seen)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", s, err))
			continue
		case c == nil:
			continue
		}
		for i := range c.Daemons {
			if d := c.Daemons[i].Report; d != nil {
				*d = ps.view.filter(*d)
			}
		}
		clusters = append(clusters, *c)
	}
	if ps.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return errors.Join(append(errs, enc.Encode(clusters))...)
	}
	for _, c := range clusters {
		printCluster(out, c, ps.view)
	}
	return errors.Join(errs...)
}

// askCluster asks one daemon; nil if its site was shown already. One that does not know its
// site, because it has no worker yet, says what it knows.
func askCluster(ctx context.Context, socket string, seen map[string]bool) (*report.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterPatience+3*time.Second)
	defer cancel()
	client, closeConn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	if len(seen) > 0 { // most hosts have the daemons of one site, and asking all is work for all
		d, err := askReport(ctx, socket, false)
		if err == nil && len(d.Workers) > 0 && seen[d.Workers[0].FSID] {
			return nil, nil
		}
	}
	reply, err := client.PsCluster(ctx, &controlv1.PsClusterRequest{})
	if err != nil {
		return nil, plain(err)
	}
	c := &report.Cluster{}
	if err := json.Unmarshal(reply.GetReportJson(), c); err != nil {
		return nil, err
	}
	if c.FSID != "" {
		seen[c.FSID] = true
	}
	return c, nil
}

// printCluster prints the daemons of a site for people.
func printCluster(out io.Writer, c report.Cluster, v view) {
	answer := 0
	for _, d := range c.Daemons {
		if d.State == report.DaemonAnswers {
			answer++
		}
	}
	fmt.Fprintf(out, "site %s: %d %s, %d %s; asked %s\n", or(c.FSID, "?"), len(c.Daemons), plural(len(c.Daemons), "daemon"),
		answer, map[bool]string{true: "answers", false: "answer"}[answer == 1], c.Asked)
	if c.Frozen {
		fmt.Fprintln(out, "  note: the list of daemons is that which was last known, for RADOS cannot be read")
	}
	for _, n := range c.Notes {
		fmt.Fprintf(out, "  note: %s\n", n)
	}
	for _, p := range c.Pools {
		fmt.Fprintf(out, "  pool %s: %s; %d %s\n", p.Pool, leadership(p), p.Images, plural(p.Images, "image"))
	}
	for _, d := range c.Daemons {
		switch {
		case d.Report != nil:
			printDaemon(out, *d.Report, v)
		case d.State == report.DaemonDead:
			fmt.Fprintf(out, "daemon %d on %s: DEAD for %s: %s\n", d.PID, d.Host, ago(c.Taken, d.Since), or(d.Text, "of what is not known"))
		default:
			fmt.Fprintf(out, "daemon %d on %s: DOES NOT ANSWER: %s\n", d.PID, d.Host, or(d.Text, "why is not known"))
		}
	}
}

func leadership(p report.Leadership) string {
	switch {
	case p.Host != "":
		return fmt.Sprintf("led by worker %d of daemon %d on %s (member %s)", p.Worker, p.PID, p.Host, p.Member)
	case p.Member != "":
		return "led by " + p.Member + ", which is none of these"
	}
	return "nobody is known to lead it"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
