package lab

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

// bar shows how far an experiment is.
type bar struct {
	out      io.Writer
	terminal bool
	planned  int
	made     int // before and by now
	by       int // by this call
	started  time.Time
	width    int // of the line that stands there
}

func newBar(out io.Writer, terminal bool, planned, made int) *bar {
	return &bar{out: out, terminal: terminal, planned: planned, made: made, started: time.Now()}
}

// left is how long the rest will take, if it takes as long as what was made.
func (b *bar) left() string {
	if b.by == 0 {
		return ""
	}
	each := time.Since(b.started) / time.Duration(b.by)
	return fmt.Sprintf(", %v left", (each * time.Duration(b.planned-b.made)).Round(time.Second))
}

const barWidth = 24

// next shows what is run now.
func (b *bar) next(t experiment.Trial) {
	if !b.terminal {
		return
	}
	full := barWidth * b.made / max(1, b.planned)
	line := fmt.Sprintf("[%s%s] %d of %d%s  %s %s %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), b.made, b.planned, b.left(),
		t.Mode, t.Workload, t.Value(experiment.FactorTransfer))
	b.show(line)
}

// show replaces the line that stands there.
func (b *bar) show(line string) {
	fmt.Fprintf(b.out, "\r%-*s", b.width, line)
	b.width = len(line)
}

// end tells how a run ended.
func (b *bar) end(r *experiment.Run) {
	b.made++
	b.by++
	if b.terminal && r.Done() && r.Check.Clean() {
		if b.made == b.planned {
			b.show(fmt.Sprintf("[%s] %d of %d", strings.Repeat("#", barWidth), b.made, b.planned))
			fmt.Fprintln(b.out)
		}
		return
	}
	if b.terminal {
		b.show("")
		fmt.Fprint(b.out, "\r")
	}
	fmt.Fprintf(b.out, "%d of %d%s  %s: %s\n", b.made, b.planned, b.left(), r.ID, verdict(r))
}

// verdict is the result of a run in a few words.
func verdict(r *experiment.Run) string {
	switch {
	case !r.Done():
		return "no result: " + r.Error
	case len(r.Check.Violations) > 0:
		v := r.Check.Violations[0]
		return fmt.Sprintf("PROMISE BROKEN: %s: %s", v.Reason, v.Text)
	case !r.Check.Clean():
		return "WRONG DATA: " + strings.Join(r.Check.Mistakes, "; ")
	}
	var parts []string
	for _, p := range r.Phases {
		parts = append(parts, fmt.Sprintf("%s %.4g %s", p.Name, p.Figure, p.Unit))
	}
	return strings.Join(parts, ", ")
}
