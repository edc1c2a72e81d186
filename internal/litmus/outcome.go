package litmus

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
)

const (
	strong    = history.Strong
	commit    = history.Commit
	laminated = history.Laminated
	session   = history.Session
	eventual  = history.Eventual
)

// promise is what a test wants to be seen, and the modes that promise it. The
// others may show anything that the model allows.
type promise struct {
	text  string
	holds func(outcome string) bool
	in    []history.Mode
}

func (p promise) promised(m history.Mode) bool { return slices.Contains(p.in, m) }

func in(modes ...history.Mode) []history.Mode { return modes }

var all = consistency.All()

// exactly promises one outcome.
func exactly(outcome string, modes []history.Mode) promise {
	return promise{outcome, func(o string) bool { return o == outcome }, modes}
}

// never promises that one outcome is not seen.
func never(outcome string, modes []history.Mode) promise {
	return promise{"not " + outcome, func(o string) bool { return o != outcome }, modes}
}

// without promises that a value is seen nowhere.
func without(value string, modes []history.Mode) promise {
	return promise{"no " + value, func(o string) bool {
		return !slices.Contains(strings.FieldsFunc(o, func(r rune) bool { return r == ',' || r == '+' }), value)
	}, modes}
}

// forward promises that reads of one byte range never go back from 1 to 0.
func forward(modes []history.Mode) promise {
	return promise{"never back", func(o string) bool {
		seen := strings.Split(o, ",")
		return slices.IsSortedFunc(seen, func(a, b string) int { return rank(a) - rank(b) })
	}, modes}
}

func rank(symbol string) int {
	return slices.Index([]string{"0", "0+1", "1+0", "0+1+0", "1+0+1", "1"}, symbol) / 5
}

// outcome is what the marked calls saw, in the order in which the program has
// them.
func outcome(events []history.Event) string {
	var out []string
	for i := range events {
		if events[i].Mark {
			out = append(out, symbol(&events[i]))
		}
	}
	return strings.Join(out, ",")
}

// symbol is what one call saw: the values of a read in their order, a size as
// "full" or "0", otherwise how it ended.
func symbol(e *history.Event) string {
	switch {
	case e.Errno != 0 || e.Op == history.Open || e.Op == history.Write:
		return history.ErrnoName(e.Errno)
	case e.Op == history.Fstat || e.Op == history.SeekEnd || e.Op == history.Stat:
		switch e.N {
		case 0:
			return "0"
		case e.Len:
			return "full"
		}
		return fmt.Sprint(e.N)
	}
	var values []string
	total := int64(0)
	for _, r := range append(slices.Clone(e.Seen), history.Run{Len: e.Len - e.N}) {
		v := strconv.Itoa(int(r.Value))
		if total += r.Len; r.Len > 0 && !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	if written := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "0" }); len(written) > 3 {
		return fmt.Sprint(len(written), " values")
	}
	return strings.Join(values, "+")
}
