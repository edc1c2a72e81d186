package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
)

// Exit codes of fsck.
const (
	fsckFindings = 1 // something is wrong and was left
	fsckUnknown  = 2 // it could not be checked
)

type fsckFlags struct {
	asJSON, repair, yes bool
	timeout             time.Duration
	opt                 fsck.Options
	rep                 fsck.RepairOptions
}

func (a *app) fsckCommand() *cobra.Command {
	var f fsckFlags
	cmd := &cobra.Command{
		Use:   "fsck tcp://HOST:PORT/FSNAME [--repair [--yes] [--force]] [--json]",
		Short: "check a PVFS2 file system while it is in use",
		Long: "fsck asks every server for all its objects and reads all directories. It finds objects that nothing refers to or\n" +
			"that are referred to twice, entries and files whose objects are gone, and what is not what it should be. What seems\n" +
			"wrong is looked at again, so that work in progress is not reported. Each finding is one line:\n\n" +
			"  KIND: handle HANDLE TYPE server ALIAS path \"PATH\": what is wrong\n\n" +
			"Nothing is changed without --repair. With it, orphans older than --grace are removed and entries that lead nowhere\n" +
			"are dropped, after asking. Orphans that are directories with entries are kept in /lost+found. All other findings are\n" +
			"for you to decide. It needs up to 20 bytes of memory an object and 25 more a directory.\n\n" +
			"Exit status: 0 nothing found, or all repaired; 1 findings are left; 2 the check could not be done.",
		Example: "  zoidfs fsck tcp://s0:3334/zoidfs\n" +
			"  zoidfs fsck --repair --yes tcp://s0:3334/zoidfs",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &exitError{fsckUnknown, errors.New("want one file system, tcp://HOST:PORT/FSNAME")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.fsck(cmd.Context(), cmd.InOrStdin(), args[0], f)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{fsckUnknown, flagError(err)} })
	flags := cmd.Flags()
	flags.BoolVar(&f.asJSON, "json", false, "print one JSON object")
	flags.BoolVar(&f.repair, "repair", false, "remove orphans and entries that lead nowhere, after asking")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.rep.Force, "force", false, "remove orphans of any age; only while nothing else uses the file system")
	flags.DurationVar(&f.rep.Grace, "grace", fsck.DefaultGrace, "leave orphans that changed less than this `TIME` ago: they may be about to get a name")
	flags.DurationVar(&f.timeout, "timeout", pvfs.DefaultTimeout, "give up when a server does not answer for this `TIME`")
	flags.IntVar(&f.opt.MaxFindings, "max-findings", fsck.DefaultMaxFindings, "list at most `N` findings and count the others")
	return cmd
}

func (f fsckFlags) validate() error {
	switch {
	case !f.repair && (f.yes || f.rep.Force):
		return errors.New("--yes and --force are for --repair")
	case f.asJSON && f.repair && !f.yes:
		return errors.New("--json --repair needs --yes")
	case f.timeout <= 0:
		return fmt.Errorf("--timeout %v is not positive", f.timeout)
	case f.opt.MaxFindings < 0:
		return fmt.Errorf("--max-findings %d is negative", f.opt.MaxFindings)
	case f.rep.Grace <= 0:
		return errors.New("--grace must be positive; --force is for none")
	}
	return f.opt.Validate()
}

func (a *app) fsck(ctx context.Context, in io.Reader, url string, f fsckFlags) error {
	r, err := a.checkAndRepair(ctx, in, url, f)
	if err != nil {
		return &exitError{fsckUnknown, err}
	}
	if f.asJSON {
		err = printJSON(a.out, r)
	} else {
		err = printSummary(a.out, r, f)
	}
	switch {
	case err != nil:
		return &exitError{fsckUnknown, err}
	case r.Left() > 0:
		return &exitError{code: fsckFindings}
	}
	return nil
}

func (a *app) checkAndRepair(ctx context.Context, in io.Reader, url string, f fsckFlags) (*fsck.Report, error) {
	if err := errors.Join(f.validate(), checkURL(url)); err != nil {
		return nil, err
	}
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	f.opt.Logger = log
	c, err := pvfs.Dial(ctx, url, pvfs.Options{Timeout: f.timeout, Logger: log})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := fsck.Check(ctx, c, f.opt)
	if err != nil {
		return nil, err
	}
	if !f.asJSON {
		for i := range r.Findings {
			fmt.Fprintln(a.out, r.Findings[i].String())
		}
	}
	if f.repair {
		a.ask(in, r, &f)
		if err := fsck.Repair(ctx, c, r, f.opt, f.rep); err != nil {
			return nil, fmt.Errorf("repair: %w", err)
		}
	}
	return r, nil
}

// ask sets what may be repaired.
func (a *app) ask(in io.Reader, r *fsck.Report, f *fsckFlags) {
	orphans, entries, _ := r.Repairable(f.rep)
	answers := bufio.NewScanner(in)
	may := func(n int, question string) bool {
		if n == 0 || f.yes {
			return n > 0
		}
		fmt.Fprintf(a.out, question+" [y/N] ", n)
		return answers.Scan() && slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answers.Text())))
	}
	f.rep.Entries = may(entries, "drop %d entries that lead nowhere?")
	f.rep.Orphans = may(orphans, "remove %d orphans?")
}

func printSummary(w io.Writer, r *fsck.Report, f fsckFlags) error {
	if f.repair {
		for i := range r.Findings {
			if r.Findings[i].Repair != "" {
				fmt.Fprintln(w, r.Findings[i].String())
			}
		}
	}
	var parts []string
	for _, typ := range slices.Sorted(maps.Keys(r.Objects)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Objects[typ], typ))
	}
	fmt.Fprintf(w, "%s: %d servers, %s; %d entries, %d bytes; %.1f s\n",
		r.FS, r.Servers, cmp.Or(strings.Join(parts, ", "), "no objects"), r.Entries, r.Bytes, r.Took.Seconds())
	if r.Open > 0 {
		fmt.Fprintf(w, "%d files without a name are kept by I/O nodes for those who have them open\n", r.Open)
	}
	if r.Changing > 0 {
		fmt.Fprintf(w, "%d things were changing and are not judged\n", r.Changing)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "%d more suspicions were not looked into, see --max-findings\n", r.More)
	}
	_, _, young := r.Repairable(f.rep)
	if f.repair && young > 0 {
		fmt.Fprintf(w, "%d orphans are younger than %v and were left\n", young, f.rep.Grace)
	}
	_, err := fmt.Fprintf(w, "%d findings, %d left\n", len(r.Findings)+int(r.More), r.Left())
	return err
}
