package work

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// rank is a process of a job.
type rank struct {
	Config
	link   *link
	report Report
	part   *Part // that is being measured, nil between phases
	done   int   // calls of the phase
	mark   int   // tell when so many are done; 0: do not
	lost   []int // ranks, as of the last barrier
	files  int   // that were opened, which names them in histories
	codes  map[string]*Code
	sample sample
}

// kinds are the programs of the kinds of workloads.
var kinds = map[string]func(*rank) error{
	experiment.Checkpoint: (*rank).checkpoint,
	experiment.Restart:    (*rank).restart,
	experiment.Exchange:   (*rank).exchange,
	experiment.Input:      (*rank).input,
	experiment.Log:        (*rank).log,
	experiment.Metadata:   (*rank).metadata,
	experiment.Load:       (*rank).load,
	experiment.Update:     (*rank).update,
}

// Serve is a rank: it asks the coordinator at the Unix socket what to do, does
// it and reports. What goes wrong is reported too; an error means that it
// could not be.
func Serve(socket string, number int) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := &rank{link: newLink(conn), codes: map[string]*Code{}}
	if err := r.link.send(message{Rank: number}); err != nil {
		return err
	}
	m, err := r.link.receive()
	if err != nil {
		return err
	}
	if m.Config == nil {
		return fmt.Errorf("rank %d was not told what to do", number)
	}
	r.Config = *m.Config
	run := kinds[r.Workload.Kind]
	if run == nil {
		return fmt.Errorf("there is no workload of kind %q", r.Workload.Kind)
	}
	if err := run(r); err != nil {
		if r.LostNode == r.Node && r.Node >= 0 {
			r.report.Lost = true
		} else {
			r.report.Error = err.Error()
		}
	}
	return r.link.send(message{Report: &r.report})
}

// barrier waits for all ranks that are left.
func (r *rank) barrier(name string) error {
	if err := r.link.send(message{Barrier: name}); err != nil {
		return err
	}
	m, err := r.link.receive()
	if err != nil {
		return err
	}
	if m.Barrier != name {
		return fmt.Errorf("waits for %q and hears of %q", name, m.Barrier)
	}
	r.lost = m.Lost
	return nil
}

// phase measures f, which all ranks begin together. It makes about calls calls.
func (r *rank) phase(name string, calls int, f func() error) error {
	if err := r.barrier(begins + name); err != nil {
		return err
	}
	r.report.Parts = append(r.report.Parts, Part{Name: name, Start: monotonic(), Latency: map[string]experiment.Histogram{}})
	r.part = &r.report.Parts[len(r.report.Parts)-1]
	r.done, r.mark = 0, 0
	if len(r.report.Parts) == 1 && r.Mark > 0 {
		r.mark = max(1, int(r.Mark*float64(calls)))
	}
	err := f()
	r.part.End = monotonic()
	r.part = nil
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return r.barrier(ends + name)
}

// op counts an operation of the phase that moved so many bytes.
func (r *rank) op(bytes int64) error {
	r.part.Ops++
	r.part.Bytes += bytes
	if r.done++; r.done == r.mark {
		return r.link.send(message{Mark: true})
	}
	return nil
}

// visible waits until what others have written before the last barrier must be
// seen, by those who open it now.
func (r *rank) visible() {
	if r.Config.Mode == history.Eventual {
		time.Sleep(slack(r.Visibility))
	}
}

// slack is the visibility with what is granted for our own delays.
func slack(v time.Duration) time.Duration { return v + max(100*time.Millisecond, v/10) }

// partner is the rank that is half of the job away: on another node, if there are
// several.
func (r *rank) partner() int { return (r.Rank + r.Size/2) % r.Size }

// value is the number by which writes of a rank are known.
func value(rank int) uint8 { return uint8(1 + rank%experiment.MaxVersions) }

func (r *rank) path(name string) string { return filepath.Join(r.Dir, name) }

// code is the code of a file.
func (r *rank) code(name string) *Code {
	if r.codes[name] == nil {
		r.codes[name] = NewCode(r.Seed, name)
	}
	return r.codes[name]
}

func (r *rank) isLost(rank int) bool { return slices.Contains(r.lost, rank) }

// maxMistakes is how many mistakes a rank describes.
const maxMistakes = 3

// mistake records that so many bytes, or something else if 0, were wrong.
func (r *rank) mistake(bytes int64, format string, args ...any) {
	r.report.Wrong += bytes
	if len(r.report.Mistakes) < maxMistakes {
		r.report.Mistakes = append(r.report.Mistakes, fmt.Sprintf("rank %d: ", r.Rank)+fmt.Sprintf(format, args...))
	}
}
