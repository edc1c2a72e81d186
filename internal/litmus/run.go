package litmus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
)

// visibilityXattr may tell how long `eventual` hides a write.
const visibilityXattr = "user.zoidfs.visibility"

// DefaultVisibility is how long `eventual` may hide a write unless it is known.
const DefaultVisibility = 5 * time.Second

// settleTime bounds the time that the rounds of one test spend on waiting for
// `eventual`: there are fewer rounds, but at least minSettled.
const (
	settleTime = time.Minute
	minSettled = 3
)

// Options are what a run tests and how.
type Options struct {
	Mounts     []string      // directories that show the same files, one a node; at least two
	Mode       history.Mode  // set on the working directory; Default: that which holds there, else strong
	Expect     history.Mode  // judge by this mode and set none; Default: see Mode
	Visibility time.Duration // of eventual; 0: that of the mount, else DefaultVisibility
	Atomic     int64         // of strong: the unit in which a call must take effect at once; 0: a byte
	Rounds     int           // of each test
	Random     int           // how many random programs
	Repeatable bool          // of these: only calls that may be carried out twice, as servers are being killed
	Seed       int64
	Tests      []string // names of tests; none: all
	Crash      string   // a shell command that kills a node and brings it back; "": no crash test
	Start      func(dir string) *exec.Cmd
	History    *history.Writer // gets every history if not nil
	Progress   io.Writer       // gets a line for each test that ends, if not nil
}

// runner is a run under way.
type runner struct {
	Options
	header history.Header // of its histories
	dirs   []string       // the working directory as the mounts show it
	team   *Team
}

// Run carries out the tests that the options ask for in a new directory, which
// it removes. An error means that it could not be found out whether the file
// system conforms.
func Run(ctx context.Context, o Options) (res Result, err error) {
	tests, err := choose(o.Tests)
	if err != nil {
		return Result{}, err
	}
	if len(o.Mounts) < 2 {
		return Result{}, errors.New("litmus tests need two mounts of one file system; they may be the same directory")
	}
	r := &runner{Options: o}
	if err := r.prepare(); err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, r.finish()) }()
	res = Result{Mode: r.header.Mode, Seed: o.Seed, Mounts: o.Mounts}
	if res.Mode == history.Eventual {
		res.Visibility = r.header.Visibility
	}
	for _, t := range tests {
		row, err := r.test(ctx, t)
		if err != nil {
			return res, fmt.Errorf("%s: %w", t.name, err)
		}
		res.add(row, o.Progress)
	}
	if len(o.Tests) == 0 || slices.Contains(o.Tests, crashTest) {
		rows, err := r.crash(ctx)
		if err != nil {
			return res, fmt.Errorf("%s: %w", crashTest, err)
		}
		for _, row := range rows {
			res.add(row, o.Progress)
		}
	}
	if o.Random > 0 {
		for _, racy := range []bool{false, true} {
			row, err := r.random(ctx, racy)
			if err != nil {
				return res, fmt.Errorf("%s: %w", row.Name, err)
			}
			res.add(row, o.Progress)
		}
	}
	return res, nil
}

// choose returns the tests of the given names, all without names.
func choose(names []string) ([]test, error) {
	if len(names) == 0 {
		return tests, nil
	}
	var out []test
	for _, name := range names {
		i := slices.IndexFunc(tests, func(t test) bool { return t.name == name })
		switch {
		case i >= 0:
			out = append(out, tests[i])
		case name != crashTest && name != "random":
			return nil, fmt.Errorf("there is no test %s; there are %s, %s", name, Names(), crashTest)
		}
	}
	return out, nil
}

// Names are the names of all tests but the crash test.
func Names() string {
	var names []string
	for _, t := range tests {
		names = append(names, t.name)
	}
	return strings.Join(names, ", ")
}

// prepare makes the working directory and learns the mode.
func (r *runner) prepare() error {
	dir, err := os.MkdirTemp(r.Mounts[0], "litmus-")
	if err != nil {
		return err
	}
	for _, m := range r.Mounts {
		r.dirs = append(r.dirs, filepath.Join(m, filepath.Base(dir)))
	}
	r.team = NewTeam(r.dirs, r.Start)
	if err := r.setUp(); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return nil
}

func (r *runner) setUp() error {
	for _, d := range r.dirs {
		if _, err := os.Stat(d); err != nil {
			return fmt.Errorf("the mounts do not show the same files: what was made in %s is not in %s: %w", r.Mounts[0], filepath.Dir(d), err)
		}
	}
	r.header = history.Header{Seed: r.Seed, Mode: r.Expect, Visibility: r.Visibility, Atomic: r.Atomic}
	if r.Mode != consistency.Default && r.Expect == consistency.Default {
		if err := unix.Setxattr(r.dirs[0], consistency.Xattr, []byte(r.Mode.String()), 0); err != nil {
			return cannotSet(r.Mounts[0], r.Mode, err)
		}
		r.header.Mode = r.Mode
	}
	if r.header.Mode == consistency.Default {
		here := consistency.Here{Mode: history.Strong}
		if err := json.Unmarshal([]byte(getXattr(r.dirs[0], consistency.HereXattr, "{}")), &here); err != nil {
			return fmt.Errorf("%s of %s: %w", consistency.HereXattr, r.Mounts[0], err)
		}
		r.header.Mode = here.Mode
	}
	if r.header.Visibility == 0 {
		v := getXattr(r.dirs[0], visibilityXattr, DefaultVisibility.String())
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", visibilityXattr, r.Mounts[0], err)
		}
		r.header.Visibility = d
	}
	// What the tester is late by must not count against the file system.
	r.header.Visibility += max(100*time.Millisecond, r.header.Visibility/10)
	return nil
}

// cannotSet says what to do if a mode cannot be set.
func cannotSet(mount string, mode history.Mode, err error) error {
	if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%s does not let the consistency mode be set to %s (%w): it is no zoidfs mount, or not of a version that has this mode; to hold it to the promise of %s all the same, use --expect %s",
			mount, mode, err, mode, mode)
	}
	return fmt.Errorf("cannot set %s of a directory in %s: %w", consistency.Xattr, mount, err)
}

func getXattr(path, name, otherwise string) string {
	buf := make([]byte, 256)
	if n, err := unix.Getxattr(path, name, buf); err == nil && n > 0 {
		return strings.TrimRight(string(buf[:n]), "\x00\n")
	}
	return otherwise
}

// finish ends the workers and removes the directory.
func (r *runner) finish() error {
	return errors.Join(r.team.Close(), os.RemoveAll(r.dirs[0]))
}

// visible is how long programs wait for `eventual`.
func (r *runner) visible() time.Duration {
	if r.header.Mode == history.Eventual {
		return r.header.Visibility
	}
	return 0
}

// rng makes the choices of a test, which are the same whatever other tests run.
func (r *runner) rng(name string) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, name)
	return rand.New(rand.NewSource(r.Seed ^ int64(h.Sum64())))
}

// test runs all rounds of a litmus test.
func (r *runner) test(ctx context.Context, t test) (Row, error) {
	rng := r.rng(t.name)
	row := Row{Name: t.name, Title: t.title, Promise: t.text, Must: t.promised(r.header.Mode), Seen: map[string]int{}}
	for round := 0; round < r.Rounds; round++ {
		s := newScript(rng, len(r.Mounts), r.visible())
		t.write(s)
		s.Name = t.name
		h, err := r.play(ctx, s.Program, round)
		if err != nil {
			return row, err
		}
		row.Rounds++
		row.Seen[outcome(h.Events)]++
		row.find(h, judge(t, h), s.Program)
		if d := s.delays(); d > r.visible() && round+1 >= minSettled && time.Duration(round+1)*r.visible() > settleTime {
			break
		}
	}
	return row, nil
}

// judge returns what is wrong with a round of a test.
func judge(t test, h history.History) []history.Violation {
	out := history.Check(h).Violations
	if o := outcome(h.Events); t.promised(h.Mode) && !t.holds(o) {
		out = append(out, history.Violation{Reason: Promise, Event: -1, Text: fmt.Sprintf("%s promises %s, seen %s", h.Mode, t.text, o)})
	}
	return out
}

// Promise is the reason of a violation that is an outcome which a test forbids.
const Promise history.Reason = "promise"

// play runs a program and records its history.
func (r *runner) play(ctx context.Context, p Program, round int) (history.History, error) {
	h := history.History{Header: r.header}
	h.Program, h.Note, h.Round = p.Name, p.Note, round
	events, err := r.team.Run(ctx, p)
	if err != nil {
		return h, err
	}
	h.Events = events
	if r.History != nil {
		err = r.History.Write(h)
	}
	return h, err
}

// Check judges a recorded history, by the outcome of its litmus test too if it
// is one of a litmus test.
func Check(h history.History) []history.Violation {
	if i := slices.IndexFunc(tests, func(t test) bool { return t.name == h.Program }); i >= 0 {
		return judge(tests[i], h)
	}
	return history.Check(h).Violations
}
