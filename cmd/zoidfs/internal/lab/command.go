package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/experiment"
)

// command makes a run of a program of the user's.
func (l *lab) command(ctx context.Context, t experiment.Trial, r *experiment.Run) (err error) {
	w := l.Spec.Workload(t.Workload)
	mode, err := consistency.Parse(t.Mode)
	if err != nil {
		return err
	}
	dir, seen, err := l.system.place(mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text := strings.NewReplacer(
		"{dir}", seen, "{ranks}", strconv.Itoa(t.Ranks), "{nodes}", strconv.Itoa(t.Nodes), "{transfer}", strconv.FormatInt(t.Transfer, 10), "{mode}", t.Mode,
		"{node}", fmt.Sprintf("%s experiment node --dir %s --", self, l.system.dir),
	).Replace(w.Command)
	args := []string{"enter", "--dir", string(l.system.dir), "--node", "0", "--", "sh", "-c", text}
	if w.Each {
		args = []string{"launch", "--dir", string(l.system.dir), "-n", strconv.Itoa(t.Ranks), "--", "sh", "-c", text}
	}
	before, err := l.system.count(ctx, false)
	if err != nil {
		return err
	}
	s := newStriker(l, l.Spec.Fault(t.Fault))
	var g errgroup.Group
	g.Go(func() error { return s.run(ctx) })
	s.begin()
	if s.fault != nil && s.fault.After == 0 {
		s.finish()
		_ = g.Wait() // it has not struck
		return errors.New("a command does not tell how far it is: give the fault a time, not a share")
	}
	begin := time.Now()
	out, runErr := l.program(ctx, args...)
	seconds := time.Since(begin).Seconds()
	s.finish()
	if err := errors.Join(runErr, g.Wait()); err != nil {
		return err
	}
	if s.fault != nil && s.strike == nil {
		return fmt.Errorf("the command ended before fault %s", s.fault.Name)
	}
	after, err := l.system.count(ctx, s.fault != nil)
	if err != nil {
		return err
	}
	r.Strike = s.strike
	if r.Figures, err = figures(w.Parse, out, seconds); err != nil {
		return err
	}
	r.Phases = []experiment.Phase{{
		Name: "command", Seconds: seconds, Ops: 1, Figure: r.Figures[w.Figure], Unit: w.Unit, Better: w.Better, Requests: levels(after.since(before)),
	}}
	return nil
}

// figures are the numbers that a program printed, as regular expressions with
// named groups find them, and the time that it took. What an expression finds
// several times counts as the last of them.
func figures(parse []string, out string, seconds float64) (map[string]float64, error) {
	found := map[string]float64{"seconds": seconds}
	for _, p := range parse {
		re, err := regexp.Compile("(?m)" + p)
		if err != nil {
			return nil, err
		}
		all := re.FindAllStringSubmatch(out, -1)
		if len(all) == 0 {
			return nil, fmt.Errorf("the command printed nothing that matches %q but: %s", p, lastLine(out))
		}
		for i, name := range re.SubexpNames() {
			if name == "" {
				continue
			}
			text := all[len(all)-1][i]
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("%s is %q, which is no number", name, text)
			}
			found[name] = v
		}
	}
	return found, nil
}
