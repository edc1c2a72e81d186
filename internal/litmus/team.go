package litmus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/history"
)

// Step is one call of a program. Event.After names the steps of other processes
// that must have returned before.
type Step struct {
	history.Event
	Delay time.Duration `json:"delay,omitempty"` // before the call
	Flat  bool          `json:"flat,omitempty"`  // the file is one of appended records
}

// Program is what a few processes do. Process p lives on node Nodes[p].
type Program struct {
	Name  string
	Note  string // what was chosen at random
	Nodes []int
	Steps []Step
}

// String is the program as a list of calls.
func (p Program) String() string {
	var b strings.Builder
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "%3d  %s", i, s.Action())
		if len(s.After) > 0 {
			fmt.Fprintf(&b, "  after %s", strings.Trim(fmt.Sprint(s.After), "[]"))
		}
		if s.Delay > time.Millisecond {
			fmt.Fprintf(&b, "  waits %v", s.Delay.Round(time.Millisecond))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// hangTime is how long a call may take before it counts as hung.
const hangTime = time.Minute

// Team is a set of worker processes, so many on each node as a program needs.
type Team struct {
	dirs   []string // of each node
	start  func(dir string) *exec.Cmd
	mates  map[[2]int]*mate // by node and number on it
	rounds int
}

// mate is a worker process.
type mate struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	err strings.Builder
}

// NewTeam returns a team that works in a directory of each node. Start makes the
// command of a worker, which must end up in Serve with its standard input and
// output.
func NewTeam(dirs []string, start func(dir string) *exec.Cmd) *Team {
	return &Team{dirs: dirs, start: start, mates: map[[2]int]*mate{}}
}

// Close ends all workers.
func (t *Team) Close() error {
	var errs []error
	for key, m := range t.mates {
		m.in.Close()
		if err := m.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("worker on %s: %w: %s", t.dirs[key[0]], err, strings.TrimSpace(m.err.String())))
		}
	}
	clear(t.mates)
	return errors.Join(errs...)
}

// Kill ends all workers at once, with whatever they have open.
func (t *Team) Kill() {
	for _, m := range t.mates {
		m.cmd.Process.Kill()
		m.in.Close()
		m.cmd.Wait()
	}
	clear(t.mates)
}

func (t *Team) mate(node, number int) (*mate, error) {
	if m := t.mates[[2]int{node, number}]; m != nil {
		return m, nil
	}
	m := &mate{cmd: t.start(t.dirs[node])}
	m.cmd.Stderr = &m.err
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("worker on %s: %w", t.dirs[node], err)
	}
	m.in, m.enc, m.dec = in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	t.mates[[2]int{node, number}] = m
	return m, nil
}

// members are the workers that carry out the processes of a program.
func (t *Team) members(p Program) ([]*mate, error) {
	used := map[int]int{}
	var out []*mate
	for _, node := range p.Nodes {
		m, err := t.mate(node, used[node])
		if err != nil {
			return nil, err
		}
		used[node]++
		out = append(out, m)
	}
	return out, nil
}

// Run carries out a program on new files and returns its events. The files are
// removed. A call that hangs ends the team.
func (t *Team) Run(ctx context.Context, p Program) ([]history.Event, error) {
	t.rounds++
	suffix := fmt.Sprintf(".%d", t.rounds)
	mates, err := t.members(p)
	if err != nil {
		return nil, err
	}
	events, err := t.play(ctx, p, mates, suffix)
	if err != nil {
		return nil, err
	}
	return events, t.clean(p, mates, suffix)
}

// play makes the calls, each process its own in order.
func (t *Team) play(parent context.Context, p Program, mates []*mate, suffix string) ([]history.Event, error) {
	ctx, cancel := context.WithTimeout(parent, hangTime+p.delays())
	defer cancel()
	events := make([]history.Event, len(p.Steps))
	done := make([]chan struct{}, len(p.Steps))
	for i := range done {
		done[i] = make(chan struct{})
	}
	defer context.AfterFunc(ctx, func() { // frees who waits for a worker
		for _, m := range mates {
			m.cmd.Process.Kill()
		}
	})()
	var g errgroup.Group
	for proc, m := range mates {
		g.Go(func() error {
			for i, s := range p.Steps {
				if s.Proc != proc {
					continue
				}
				for _, a := range s.After {
					select {
					case <-done[a]:
					case <-ctx.Done():
						return nil // the call that it waits for has the blame
					}
				}
				e, err := m.do(request{Step: s}, suffix)
				if err != nil {
					cancel()
					return fmt.Errorf("%s on %s: %w %s", s.Action(), t.dirs[s.Node], err, m.err.String())
				}
				events[i] = e
				close(done[i])
			}
			return nil
		})
	}
	err := g.Wait()
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		t.Kill()
		return nil, parent.Err()
	case ctx.Err() != nil:
		t.Kill()
		return nil, fmt.Errorf("a call hangs or its worker died: %w", err)
	}
	return events, err
}

func (p Program) delays() (d time.Duration) {
	for _, s := range p.Steps {
		d += s.Delay
	}
	return d
}

// do lets the worker make one call. Names get the suffix of the round on the
// way; the event has those of the program.
func (m *mate) do(q request, suffix string) (history.Event, error) {
	name, to := q.Name, q.To
	if name != "" {
		q.Name += suffix
	}
	if to != "" {
		q.To += suffix
	}
	if err := m.enc.Encode(&q); err != nil {
		return history.Event{}, err
	}
	var e history.Event
	if err := m.dec.Decode(&e); err != nil {
		return e, err
	}
	e.Name, e.To = name, to
	return e, nil
}

// clean lets all processes close their files and removes those of the program.
func (t *Team) clean(p Program, mates []*mate, suffix string) error {
	var names []string
	for _, s := range p.Steps {
		for _, n := range []string{s.Name, s.To} {
			if n != "" && !slices.Contains(names, n+suffix) {
				names = append(names, n+suffix)
			}
		}
	}
	for _, m := range slices.Backward(mates) {
		q := request{Reset: true}
		if m == mates[0] {
			q.Remove = names
		}
		if _, err := m.do(q, ""); err != nil {
			return err
		}
	}
	return nil
}
