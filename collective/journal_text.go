package collective

import (
	"fmt"
	"strings"
	"time"
)

// String says in a line what happened, without what it was done to, as in
//
//	write: 64 calls of job 7 (ranks 0-63), 4 MiB in 64 extents, 1 when merged; held 1.2 ms until all expected had come; 1 request, 4 MiB moved, 3.1 ms
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s of %s", r.Op, count(r.Calls, "call"), membersText(r.Members))
	if r.Bytes > 0 {
		b.WriteString(", " + Bytes(r.Bytes))
	}
	if r.Extents > 1 {
		fmt.Fprintf(&b, " in %d extents, %d when merged", r.Extents, r.Runs)
	}
	b.WriteString("; " + r.startText())
	fmt.Fprintf(&b, "; %s", count(r.Requests, "request"))
	if r.Moved > 0 {
		fmt.Fprintf(&b, ", %s moved", Bytes(r.Moved))
	}
	fmt.Fprintf(&b, ", %s", Took(r.Took))
	if r.Estimate > 0 {
		fmt.Fprintf(&b, " (estimated %s)", Took(r.Estimate))
	}
	if r.Plan != "" {
		b.WriteString("; " + r.Plan)
	}
	if r.Fewer != "" {
		b.WriteString("; not fewer: " + r.Fewer)
	}
	return b.String()
}

// startText says what started the round, and for whom it waited.
func (r Record) startText() string {
	switch {
	case r.Rounds > 1:
		return "each alone"
	case r.Held == 0:
		return [...]string{
			Alone: "at once", Behind: "behind the one in flight", Complete: "when all expected had come",
			Expired: "at once", Elsewhere: "at once", Full: "as large as allowed",
		}[min(r.Why, Full)]
	case r.Why == Complete:
		return fmt.Sprintf("held %s until all expected had come", Took(r.Held))
	}
	text := "held " + Took(r.Held)
	if len(r.Missing) > 0 {
		text += " in vain for " + membersText(r.Missing)
	}
	switch r.Why {
	case Elsewhere:
		text += ", until one of them did something else"
	case Full:
		text += ", until it was as large as allowed"
	case Alone:
		text += ", until somebody came of whom nothing is known"
	}
	return text
}

// membersText is what String says of each.
func membersText(all []Members) string {
	var parts []string
	for _, m := range all {
		parts = append(parts, m.String())
	}
	return strings.Join(parts, " and ")
}

// String is "job 7 (ranks 0-3, 8)", "job 7 (2 mounts)", or "processes of no job".
func (m Members) String() string {
	switch {
	case m.Mounts && m.Job == 0:
		return count(m.Count, "mount")
	case m.Mounts:
		return fmt.Sprintf("job %v (%s)", m.Job, count(m.Count, "mount"))
	case m.Job == 0:
		if m.Count == 1 {
			return "a process of no job"
		}
		return "processes of no job"
	}
	if len(m.Ranks) == 0 {
		return fmt.Sprintf("job %v", m.Job)
	}
	var ranks []string
	for _, r := range m.Ranks {
		if r.First == r.Last {
			ranks = append(ranks, fmt.Sprint(r.First))
		} else {
			ranks = append(ranks, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	word := "ranks"
	if m.Count == 1 {
		word = "rank"
	}
	return fmt.Sprintf("job %v (%s %s)", m.Job, word, strings.Join(ranks, ", "))
}

// String is what names a job to people who know only its number.
func (j JobID) String() string { return fmt.Sprintf("%016x", uint64(j)) }

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// Bytes writes a number of bytes for people.
func Bytes(n int64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, u := float64(n), 0
	for ; f >= 1024 && u < len(units)-1; u++ {
		f /= 1024
	}
	return fmt.Sprintf("%.4g %s", f, units[u])
}

// Took writes a time for people.
func Took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.4g s", d.Seconds())
}
