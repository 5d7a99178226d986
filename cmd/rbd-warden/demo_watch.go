package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// during does something to the images and shows how the daemon follows, until that is done and all has been mirrored.
func (d *demo) during(ctx context.Context, do func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	return d.watch(ctx, done)
}

// watch shows all images until something is done (nil: it is) and they have been calm for a moment since: a report may
// be a moment old.
func (d *demo) watch(ctx context.Context, done <-chan error) error {
	const calmReports = 8
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	began := time.Now()
	for calm := 0; calm < calmReports; calm++ {
		images := d.images(ctx)
		if done != nil || !settled(images) {
			calm = -1
		}
		d.screen.live(time.Since(began), progressLine(images))
		select {
		case <-ctx.Done():
			return fmt.Errorf("the images are not ready: %w", ctx.Err())
		case <-d.exited:
			return fmt.Errorf("the daemon ended: %s", exitText(d.exit))
		case err := <-done:
			if err != nil {
				return err
			}
			done = nil
		case <-time.After(250 * time.Millisecond):
		}
	}
	d.screen.settle()
	return nil
}

// exitText says how a process ended that should not have.
func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// settled says that all images replay and have nothing left to do.
func settled(images []report.Image) bool {
	for _, image := range images {
		if image.State != "replaying" || image.EntriesBehind != 0 {
			return false
		}
	}
	return len(images) == len(demoImages)
}

// images asks the daemon how its images are; none while it does not answer.
func (d *demo) images(ctx context.Context) []report.Image {
	said, err := askReport(ctx, d.socket, false)
	if err != nil {
		return nil
	}
	var images []report.Image
	for _, worker := range said.Workers {
		for _, pool := range worker.Pools {
			images = append(images, pool.Images...)
		}
	}
	return images
}

// untilMirrored waits until the mirror has committed all that the primary's journal holds of an image now. The daemon's
// report alone may be older than the last write.
func (d *demo) untilMirrored(ctx context.Context, image string) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	for {
		text, err := d.pair.Primary.CLI(ctx, "rbd", "journal", "status", "--format", "json", "--pool", demoPool, "--image", image)
		if err != nil {
			return err
		}
		var status struct {
			Clients []struct {
				Commit struct {
					Positions []any `json:"object_positions"`
				} `json:"commit_position"`
			} `json:"registered_clients"`
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			return fmt.Errorf("rbd journal status of %s: %w", image, err)
		}
		// The primary is the first client, the mirror the second; positions are newest first.
		if len(status.Clients) == 2 && len(status.Clients[0].Commit.Positions) > 0 && len(status.Clients[1].Commit.Positions) > 0 &&
			fmt.Sprint(status.Clients[0].Commit.Positions[0]) == fmt.Sprint(status.Clients[1].Commit.Positions[0]) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not mirrored: %w", image, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
