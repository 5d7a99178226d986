package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/admin"
	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// configCommands show and change options. Most options are librados' in the workers, and
// it answers for them; what the daemon itself goes by is put in their places.
func (a *adminServer) configCommands() []admin.Command {
	one := []admin.Param{{Name: "var"}}
	return []admin.Command{
		{Prefix: "config show", Help: "dump current config settings", Run: a.configShow},
		{Prefix: "config get", Help: "config get <field>: get the config value", Params: one, Run: a.configGet},
		{Prefix: "config set", Help: "config set <field> <val> [<val> ...]: set a config variable",
			Params: []admin.Param{{Name: "var"}, {Name: "val", Many: true}},
			Run: func(ctx context.Context, args admin.Args) (admin.Answer, error) {
				said, err := a.set(ctx, args.First("var"), strings.Join(args["val"], " "))
				if err != nil {
					return admin.Answer{}, err
				}
				v := admin.NewObject("config_set")
				v.String("success", said)
				return admin.Answer{Value: v}, nil
			}},
		{Prefix: "config unset", Help: "config unset <field>: unset a config variable", Params: one,
			Run: func(ctx context.Context, args admin.Args) (admin.Answer, error) {
				if err := a.unset(ctx, args.First("var")); err != nil {
					return admin.Answer{}, err
				}
				return admin.Answer{Value: admin.NewObject("config_unset")}, nil
			}},
		{Prefix: "config diff", Help: "dump diff of current config and default config", Run: a.configDiff},
		{Prefix: "config diff get", Params: one, Run: a.configDiff,
			Help: "dump diff get <field>: dump diff of current and default config setting <field>"},
		{Prefix: "config help", Help: "get config setting schema and descriptions",
			Params: []admin.Param{{Name: "var", Optional: true}}, Run: a.configHelp},
		{Prefix: "injectargs", Help: "inject configuration arguments into running daemon",
			Params: []admin.Param{{Name: "injected_args", Many: true}}, Run: a.injectArgs},
	}
}

// own are the options that the daemon answers for.
func (a *adminServer) own() []config.Shown {
	cfg := a.d.config()
	return slices.Concat(cfg.ProcessOptions(), cfg.OwnOptions())
}

// configShow is all options as they are in effect. Without a worker, those that the daemon
// itself knows.
func (a *adminServer) configShow(ctx context.Context, _ admin.Args) (admin.Answer, error) {
	cfg := a.d.config()
	v, err := a.ask(ctx, 0, "config show", nil)
	if err != nil || v == nil {
		v = admin.NewObject("config_show")
		v.String("name", cfg.Entity.String())
		v.String("cluster", cfg.Cluster)
		for _, o := range config.Table() {
			v.PutString(o.Name, o.Default)
		}
		for _, s := range []config.Settings{cfg.Defaults, cfg.Overrides} {
			for _, name := range slices.Sorted(maps.Keys(s)) {
				v.PutString(name, s[name])
			}
		}
	}
	for _, o := range a.own() {
		v.PutString(o.Name, o.Value)
	}
	hideSecrets(v)
	return admin.Answer{Value: v}, nil
}

func hideSecrets(v *admin.Value) {
	for _, m := range v.Members() {
		if config.Secret(m.Name()) && m.Text() != "" {
			v.PutString(m.Name(), "(hidden)")
		}
	}
}

func (a *adminServer) configGet(ctx context.Context, args admin.Args) (admin.Answer, error) {
	name := args.First("var")
	v := admin.NewObject("config_get")
	for _, o := range a.own() {
		if o.Name == name {
			v.String(name, o.Value)
			return admin.Answer{Value: v}, nil
		}
	}
	inner, err := a.ask(ctx, 0, "config get", args)
	if err != nil {
		var known *admin.Error
		if errors.As(err, &known) && !errors.Is(err, syscall.ENOTSUP) {
			return admin.Answer{}, err
		}
		// No worker runs, or librados has no socket there.
		all, err := a.configShow(ctx, nil)
		if err != nil {
			return admin.Answer{}, err
		}
		if m := all.Value.Member(name); m != nil {
			v.Put(m)
			return admin.Answer{Value: v}, nil
		}
		return admin.Answer{}, admin.Errorf(syscall.ENOENT, "error getting '%s': %s", name, admin.Strerror(syscall.ENOENT))
	}
	hideSecrets(inner)
	return admin.Answer{Value: inner}, nil
}

// configDiff tells which options are not at their defaults, and who set them.
func (a *adminServer) configDiff(ctx context.Context, args admin.Args) (admin.Answer, error) {
	v := admin.NewObject("config_diff")
	diff := v.Object("diff")
	if inner, err := a.ask(ctx, 0, "config diff", nil); err == nil {
		for _, m := range inner.Member("diff").Members() {
			if !config.Secret(m.Name()) {
				diff.Put(m)
			}
		}
	}
	own := a.own()
	// What librados was told of these is not what counts.
	diff.Remove(func(name string) bool {
		return slices.ContainsFunc(own, func(o config.Shown) bool { return o.Name == name })
	})
	for _, o := range own {
		if o.Value != o.Default {
			d := admin.NewObject(o.Name)
			d.String("default", o.Default)
			d.String("final", o.Value)
			diff.Put(d)
		}
	}
	diff.Sort()
	if name := args.First("var"); name != "" {
		diff.Remove(func(n string) bool { return n != name })
	}
	return admin.Answer{Value: v}, nil
}

// configHelp describes an option, or all.
func (a *adminServer) configHelp(ctx context.Context, args admin.Args) (admin.Answer, error) {
	o, known := config.Find(args.First("var"))
	if !known || !o.Own() {
		v, err := a.ask(ctx, 0, "config help", args)
		return admin.Answer{Value: v}, err
	}
	v := admin.NewObject("config_help")
	d := v.Object("option")
	d.String("name", o.Name)
	d.String("type", o.Type.String())
	d.String("level", "advanced")
	d.String("desc", o.About)
	d.String("long_desc", "")
	d.String("default", o.Default)
	d.String("daemon_default", "")
	d.Array("tags")
	d.Array("services").String("service", "rbd-mirror")
	d.Array("see_also")
	d.String("min", "")
	d.String("max", "")
	d.Bool("can_update_at_runtime", false)
	d.Array("flags")
	return admin.Answer{Value: v}, nil
}

// injectArgs sets options that are written as on a command line.
func (a *adminServer) injectArgs(ctx context.Context, args admin.Args) (admin.Answer, error) {
	words := strings.Fields(strings.Join(args["injected_args"], " "))
	for len(words) > 0 {
		name, isOption := strings.CutPrefix(words[0], "--")
		if !isOption || name == "" {
			return admin.Answer{}, admin.Errorf(syscall.EINVAL, "failed to parse arguments: %s", words[0])
		}
		words = words[1:]
		name, value, inOne := strings.Cut(name, "=")
		if !inOne {
			if len(words) == 0 {
				return admin.Answer{}, admin.Errorf(syscall.EINVAL, "failed to parse arguments: --%s has no value", name)
			}
			value, words = words[0], words[1:]
		}
		if _, err := a.set(ctx, strings.NewReplacer("-", "_", " ", "_").Replace(name), value); err != nil {
			return admin.Answer{}, err
		}
	}
	return admin.Answer{Value: admin.NewObject("injectargs")}, nil
}

// set changes an option while the daemon runs. It says, in Ceph's manner, what it is now,
// and whether somebody goes by it already.
func (a *adminServer) set(ctx context.Context, name, value string) (string, error) {
	refuse := func(errno syscall.Errno, why string) error {
		if why != "" {
			why = "\n" + why
		}
		return admin.Errorf(errno, "error setting '%s' to '%s': %s%s", name, value, admin.Strerror(errno), why)
	}
	option, used := config.Find(name)
	if used {
		name = option.Name
		if err := option.Check(value); err != nil {
			return "", refuse(syscall.EINVAL, err.Error())
		}
	}
	switch {
	case name == "debug_rbd_mirror":
		level, err := config.ParseLogLevel(value)
		if err != nil {
			return "", refuse(syscall.EINVAL, "")
		}
		zerolog.SetGlobalLevel(logLevel(level))
		a.d.change(func(c *config.Config) { c.Process.LogLevel = level })
		_, err = a.setInWorkers(ctx, name, value)
		return "", err // as rbd-mirror, which says nothing about this one
	case slices.ContainsFunc(a.own(), func(o config.Shown) bool { return o.Name == name && !inWorkers[name] }):
		return "", refuse(syscall.EPERM, "It takes a restart of the daemon.")
	}
	if !option.Own() || !used {
		if err := a.setInLibrados(ctx, "config set", admin.Args{"var": {name}, "val": {value}}); err != nil {
			return "", err
		}
	}
	if name != injectPanic { // which is meant for the workers that run now
		a.d.change(func(c *config.Config) {
			if inWorkers[name] {
				c.Own[name] = value
			} else {
				c.Overrides[name] = value
			}
		})
	}
	live, err := a.setInWorkers(ctx, name, value)
	if err != nil {
		return "", err
	}
	note := ""
	if used && !live {
		note = "(not observed, change takes effect in a new worker: rbd-warden worker restart) "
	}
	return name + " = '" + value + "' " + note, nil
}

// inWorkers are the options of ours that only workers go by: a new one takes a new value.
var inWorkers = map[string]bool{
	"rbd_warden_bytes_in_flight": true, "rbd_warden_image_bytes_in_flight": true,
	"rbd_warden_inject_no_budget":        true,
	"rbd_warden_replay_bytes_per_second": true, "rbd_warden_sync_bytes_per_second": true,
	"rbd_warden_osd_timeout": true, "rbd_warden_mon_timeout": true, "rbd_warden_connect_timeout": true,
	"rbd_warden_stall_report": true, "rbd_warden_stall_restart": true, "rbd_warden_stall_grace": true, injectPanic: true,
}

// setInLibrados changes an option of the workers' connections to the local cluster. A
// worker that is down gets it when it starts.
func (a *adminServer) setInLibrados(ctx context.Context, command string, args admin.Args) error {
	for i := range a.d.workers {
		_, err := a.ask(ctx, i, command, args)
		var refused *admin.Error
		if errors.As(err, &refused) && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	return nil
}

// setInWorkers tells the workers of a new value, and whether all go by it.
func (a *adminServer) setInWorkers(ctx context.Context, name, value string) (live bool, err error) {
	live = true
	for i := range a.d.workers {
		r := &controlv1.CallRequest{Command: configSet, Arguments: map[string]string{"var": name, "val": value}}
		reply, err := a.call(ctx, i, r)
		var refused *admin.Error
		switch {
		case errors.As(err, &refused):
			return false, err
		case err == nil:
			live = live && reply.Text == tookEffect
		}
	}
	return live, nil
}

// unset takes back what was set while the daemon ran, or on its command line.
func (a *adminServer) unset(ctx context.Context, name string) error {
	if option, used := config.Find(name); used {
		name = option.Name
	}
	for _, o := range a.own() {
		if o.Name != name {
			continue
		}
		if name == "debug_rbd_mirror" {
			_, err := a.set(ctx, name, o.Default)
			return err
		}
		if !inWorkers[name] {
			return admin.Errorf(syscall.EPERM, "error unsetting '%s': %s\nIt takes a restart of the daemon.", name, admin.Strerror(syscall.EPERM))
		}
		a.d.change(func(c *config.Config) { delete(c.Own, name) })
		_, err := a.setInWorkers(ctx, name, o.Default) // who goes by it at once does so now, too
		return err
	}
	if err := a.setInLibrados(ctx, "config unset", admin.Args{"var": {name}}); err != nil {
		return err
	}
	a.d.change(func(c *config.Config) { delete(c.Overrides, name) })
	if now, err := a.ask(ctx, 0, "config get", admin.Args{"var": {name}}); err == nil {
		_, err = a.setInWorkers(ctx, name, now.Member(name).Text())
		return err
	}
	return nil
}

// config is the configuration as it is now.
func (d *warden) config() config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

// change changes the configuration, for workers that start from now on.
func (d *warden) change(how func(*config.Config)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.cfg
	c.Overrides, c.Own, c.Drains = maps.Clone(c.Overrides), maps.Clone(c.Own), maps.Clone(c.Drains)
	how(&c)
	data, err := json.Marshal(c)
	if err != nil {
		d.log.Error().Err(err).Msg("cannot encode the configuration")
		return
	}
	d.cfg = c
	for _, w := range d.workers {
		w.SetConfig(data)
	}
}
