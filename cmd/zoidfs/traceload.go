package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// maxCalls bounds what is looked at at once.
const maxCalls = 20_000_000

// traceFilter chooses calls.
type traceFilter struct {
	calls []string
	file  string
	job   string
	ranks []int

	ops []trace.Op
}

func (f *traceFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "only files of which `PATTERN` matches the path below the mount, or the name, or a directory above")
	flags.StringVar(&f.job, "job", "", "only calls of this `JOB`")
	flags.IntSliceVar(&f.ranks, "rank", nil, "only calls of these ranks")
}

func (f *traceFilter) check() error {
	for _, name := range f.calls {
		o, err := trace.ParseOp(name)
		if err != nil {
			return fmt.Errorf("--call: %w", err)
		}
		f.ops = append(f.ops, o)
	}
	if _, err := filepath.Match(f.file, ""); err != nil {
		return fmt.Errorf("--file: %q is not a pattern", f.file)
	}
	f.file = strings.Trim(f.file, "/")
	return nil
}

// keep reports whether a call is chosen.
func (f *traceFilter) keep(t *trace.Trace, c *trace.Call) bool {
	if len(f.ops) > 0 && !slices.Contains(f.ops, c.Op) {
		return false
	}
	if f.job != "" || len(f.ranks) > 0 {
		p := t.Process(c)
		if p.Job == "" || f.job != "" && !sameJob(p.Job, f.job) || len(f.ranks) > 0 && !slices.Contains(f.ranks, int(p.Rank)) {
			return false
		}
	}
	return f.file == "" || matches(f.file, t.Name(c)) || c.To != "" && matches(f.file, c.To)
}

// sameJob reports whether a job is meant by what a user calls it: with or
// without its launcher.
func sameJob(job, name string) bool {
	_, bare, _ := strings.Cut(job, " ")
	return job == name || bare == name
}

// matches reports whether pattern matches path, the last element of it, or a
// directory above it.
func matches(pattern, path string) bool {
	if ok, _ := filepath.Match(pattern, filepath.Base(path)); ok {
		return true
	}
	for {
		if ok, _ := filepath.Match(pattern, path); ok {
			return true
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return false
		}
		path = path[:cut]
	}
}

// loadTraces reads traces; of a directory, those in it.
func loadTraces(names []string, keep func(*trace.Trace, *trace.Call) bool) ([]*trace.Trace, error) {
	var files []string
	for _, name := range names {
		if st, err := os.Stat(name); err != nil || !st.IsDir() {
			files = append(files, name)
			continue
		}
		in, err := filepath.Glob(filepath.Join(name, "*"+local.TraceSuffix))
		if err != nil || len(in) == 0 {
			return nil, fmt.Errorf("there are no traces (*%s) in %s", local.TraceSuffix, name)
		}
		files = append(files, in...)
	}
	if len(files) == 0 {
		return nil, errors.New("which FILE of traces?")
	}
	var out []*trace.Trace
	room := maxCalls
	for _, name := range files {
		t, err := loadTrace(name, room, keep)
		if errors.Is(err, trace.ErrTooMany) {
			return nil, fmt.Errorf("more than %d calls, choose some of them with --file, --job or --rank", maxCalls)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		room -= len(t.Calls)
		out = append(out, t)
	}
	return out, nil
}

func loadTrace(name string, room int, keep func(*trace.Trace, *trace.Call) bool) (*trace.Trace, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err) // who calls names the file
	}
	defer f.Close()
	return trace.Decode(f, room, keep)
}

// warnings are what is missing in a trace, for people.
func warnings(t *trace.Trace) []string {
	var out []string
	where := fmt.Sprintf("%s on %s", t.Mountpoint, t.Node)
	if t.Cut {
		out = append(out, fmt.Sprintf("the trace of %s has no end: its mount died, or still records", where))
	}
	if t.Dropped > 0 {
		out = append(out, fmt.Sprintf("%d calls are missing in the trace of %s", t.Dropped, where))
	}
	if t.Full {
		out = append(out, fmt.Sprintf("the trace of %s was full before it was ended", where))
	}
	return out
}
