package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

func (a *app) explainCommand() *cobra.Command {
	var job string
	var last int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain PATH | --job JOB [PATH] [--last N] [--json]",
		Short: "what was carried out together, for whom was waited, and why it was not less",
		Long: "explain asks the mount that PATH lies on, and its I/O nodes, what they have done lately with a file or directory: who\n" +
			"called, what was merged, for how long and for whom it was held, how many requests it became and what they took. Calls\n" +
			"that nobody joined are counted together. Of the root of a mount it prints what was done with any file. --job selects\n" +
			"what was done for a job, by its number of 16 hexadecimal digits; without a PATH it asks all mounts of this machine.\n" +
			"Each remembers the last one or two thousand rounds.",
		Example: "  zoidfs explain /zfs/checkpoint.h5\n" +
			"  zoidfs explain /zfs --last 20\n" +
			"  zoidfs explain --job 5f1d7a9c00b2e431",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return fmt.Errorf("unexpected argument %q", args[1])
			case len(args) == 0 && job == "":
				return errors.New("which PATH? Or --job JOB")
			case last < 0:
				return fmt.Errorf("--last %d is negative", last)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			e, err := explain(ctx, args, job)
			if e.Told == nil {
				return err
			}
			e.keep(last)
			if asJSON {
				return errors.Join(err, printJSON(a.out, e))
			}
			return errors.Join(err, e.print(a.out))
		},
	}
	cmd.Flags().StringVar(&job, "job", "", "of this `JOB`, instead of a PATH")
	cmd.Flags().IntVar(&last, "last", 0, "no more than the last `N` of each (default all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// explanation is what `zoidfs explain` prints.
type explanation struct {
	Path   string `json:"path,omitempty"`
	Handle uint64 `json:"handle,string"` // of Path; 0: of all files
	Job    string `json:"job,omitempty"`
	Told   []told `json:"told"`
}

// told is what one of those who were asked remembers.
type told struct {
	Who     string              `json:"who"` // "mount", "I/O node"
	Where   string              `json:"where"`
	Records []collective.Record `json:"records"` // the oldest first
}

// explain asks the mount that a path lies on, or all of this machine, and their
// I/O nodes. job may be empty.
func explain(ctx context.Context, paths []string, job string) (explanation, error) {
	e := explanation{Job: job}
	id, err := parseJob(job)
	if err != nil {
		return e, err
	}
	if len(paths) > 0 {
		e.Path = paths[0]
	} else if paths, err = mountpoints(); err != nil {
		return e, err
	}
	var ions []string
	var failed error
	for _, path := range paths {
		var r fs.Rounds
		if err := askXattr(ctx, path, fs.RoundsXattr, "explain", "the mount", &r); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		e.Handle = r.Handle
		r.Records = slices.DeleteFunc(r.Records, func(r collective.Record) bool { return id != 0 && !r.Of(id) })
		e.Told = append(e.Told, told{"mount", path, r.Records})
		for _, addr := range r.IONs {
			if !slices.Contains(ions, addr) {
				ions = append(ions, addr)
			}
		}
	}
	return e, errors.Join(failed, e.ask(ctx, ions, id))
}

// parseJob reads the number of a job; it is 0 if there is none.
func parseJob(s string) (collective.JobID, error) {
	if s == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("--job %q is not the number of a job, of 16 hexadecimal digits", s)
	}
	return collective.JobID(id), nil
}

// mountpoints is where zoidfs is mounted on this machine, at least once.
func mountpoints() ([]string, error) {
	all, err := mounts.List()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if m.FSType == mounts.FSType {
			out = append(out, m.Point)
		}
	}
	if out == nil {
		return nil, errors.New("no zoidfs is mounted on this machine")
	}
	return out, nil
}

// ask has the I/O nodes tell as well, those that answer.
func (e *explanation) ask(ctx context.Context, ions []string, job collective.JobID) error {
	var failed error
	for _, addr := range ions {
		resp, err := rpc.Rounds(ctx, addr, &ionpb.RoundsReq{Handle: e.Handle, Job: uint64(job)}, rpc.Options{})
		t := told{Who: "I/O node", Where: addr}
		if err == nil {
			err = json.Unmarshal(resp.Records, &t.Records)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("I/O node %s: %w", addr, err))
			continue
		}
		e.Told = append(e.Told, t)
	}
	return failed
}

// keep drops all but the last records of each; 0 keeps all.
func (e *explanation) keep(last int) {
	for i := range e.Told {
		if r := e.Told[i].Records; last > 0 && len(r) > last {
			e.Told[i].Records = r[len(r)-last:]
		}
	}
}

func (e *explanation) print(w io.Writer) error {
	for _, t := range e.Told {
		if _, err := fmt.Fprintf(w, "%s %s\n", t.Who, t.Where); err != nil {
			return err
		}
		if len(t.Records) == 0 {
			fmt.Fprintln(w, "  remembers nothing of it")
		}
		for _, r := range t.Records {
			object := ""
			if e.Handle == 0 {
				object = fmt.Sprintf("%d  ", r.Object)
			}
			fmt.Fprintf(w, "  %s  %s%v\n", r.At.Format(time.TimeOnly+".000"), object, r)
		}
	}
	return nil
}
