package litmus

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// crashTest is the name of the tests that need a command to crash a node.
const crashTest = "L16"

// crashRounds is how often a node is crashed for each of them.
const crashRounds = 3

// returnTime is how long a node may take to answer again after a crash.
const returnTime = 2 * time.Minute

// crash runs the crash tests: P writes, in the second one it syncs too, then
// the command kills a node and brings it back, and Q opens the file and reads.
func (r *runner) crash(ctx context.Context) ([]Row, error) {
	rows := []Row{
		{Name: crashTest, Title: "P:W ⇒ crash ⇒ Q:open,R", Promise: "0 or 1", Must: true},
		{Name: crashTest + "f", Title: "P:W,fsync ⇒ crash ⇒ Q:open,R", Promise: "1", Must: true},
	}
	for i := range rows {
		row := &rows[i]
		if r.Crash == "" {
			row.NotRun = "needs --crash"
			continue
		}
		row.Seen = map[string]int{}
		rng := r.rng(row.Name)
		for round := range crashRounds {
			h, p, err := r.crashOnce(ctx, rng, i == 1)
			if err != nil {
				return nil, err
			}
			h.Round = round
			row.Rounds++
			row.Seen[outcome(h.Events)]++
			row.find(h, history.Check(h).Violations, p)
			if r.History != nil {
				if err := r.History.Write(h); err != nil {
					return nil, err
				}
			}
		}
	}
	return rows, nil
}

// crashOnce runs the program in two halves with the crash between them.
func (r *runner) crashOnce(ctx context.Context, rng *rand.Rand, sync bool) (history.History, Program, error) {
	s := newScript(rng, len(r.Mounts), r.visible())
	P, Q, x := s.on(nodeA), s.on(nodeB), s.x
	P.create(x).write(x, 1)
	if sync {
		P.fsync(x)
	}
	s.settle()
	half := len(s.Steps)
	Q.open(x.name, unix.O_RDONLY).see(x)
	h := history.History{Header: r.header}
	h.Program, h.Note, h.Crash = crashTest, s.Note, true
	r.team.rounds++
	suffix := fmt.Sprintf(".%d", r.team.rounds)
	mates, err := r.team.members(s.Program)
	if err != nil {
		return h, s.Program, err
	}
	first := s.Program
	first.Steps = s.Steps[:half]
	if h.Events, err = r.team.play(ctx, first, mates, suffix); err != nil {
		return h, s.Program, err
	}
	if err := r.kill(ctx, P.node); err != nil {
		return h, s.Program, err
	}
	rest := s.Program
	rest.Steps = nil
	for _, step := range s.Steps[half:] {
		step.After = nil
		rest.Steps = append(rest.Steps, step)
	}
	if mates, err = r.team.members(s.Program); err != nil {
		return h, s.Program, err
	}
	events, err := r.team.play(ctx, rest, mates, suffix)
	for i := range events {
		events[i].After = s.Steps[half+i].After
	}
	h.Events = append(h.Events, events...)
	return h, s.Program, errors.Join(err, r.team.clean(s.Program, mates, suffix))
}

// kill runs the command, told which node P is on, and waits until all mounts
// answer. Workers do not live through it.
func (r *runner) kill(ctx context.Context, node int) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", r.Crash)
	cmd.Env = append(os.Environ(), "ZOIDFS_LITMUS_MOUNT="+r.Mounts[node], fmt.Sprint("ZOIDFS_LITMUS_NODE=", node))
	out, err := cmd.CombinedOutput()
	r.team.Kill()
	if err != nil {
		return fmt.Errorf("the crash command: %w: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, returnTime)
	defer cancel()
	for _, d := range r.dirs {
		for {
			err := exec.CommandContext(ctx, "stat", d).Run() // a process, as it may hang
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not answer after the crash: %w", d, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}
