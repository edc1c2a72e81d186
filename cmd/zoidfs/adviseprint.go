package main

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/zoidfs/zoidfs/internal/advise"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

// unseen says what advise cannot know.
const unseen = `What this does not see: messages and barriers between ranks (see --barriers), what was on the files before, stores to
mappings until they are written back, who looks only at the size of a file. It is about this run: another input may do other things.
`

// breaks says of each mode what would make it too weak.
var breaks = map[consistency.Mode]string{
	consistency.Commit:  "a process that uses bytes before their writer has called fsync or close",
	consistency.Session: "a process that uses bytes without opening the file after their writer has closed it",
}

func printAdvice(w io.Writer, r *advise.Report, mount string, begin int64) {
	if len(r.Files) == 0 {
		fmt.Fprintln(w, "no file was read or written")
	} else {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "ADVICE\tWRITERS\tREADERS\tWRITTEN\tREAD\tFILE")
		for i := range r.Files {
			f := &r.Files[i]
			fmt.Fprintf(tw, "%v\t%d\t%d\t%d\t%d\t%s\n", f.Advice, len(f.Writers), len(f.Readers), f.Written, f.Read, f.Path)
		}
		_ = tw.Flush() // the writer below keeps the error
		for i := range r.Files {
			printFile(w, &r.Files[i], begin)
		}
		printCommands(w, r, mount)
		fmt.Fprint(w, "\n"+unseen)
	}
	if r.Skipped > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d reads and writes by nobody knows whom were left out", r.Skipped))
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note: "+n)
	}
}

func printFile(w io.Writer, f *advise.File, begin int64) {
	fmt.Fprintf(w, "\n%s: %v\n  %s\n", f.Path, f.Advice, f.Why)
	fmt.Fprintf(w, "  written by %s; read by %s\n", people(f.Writers), people(f.Readers))
	if len(f.Orders) > 0 {
		fmt.Fprintf(w, "  of the pairs that share bytes, %s\n", ordersText(f.Orders))
	}
	for _, c := range f.Breaks {
		fmt.Fprintf(w, "  needs %s: %s of [%d,%d)%s\n", c.Mode, c.Kind, c.Off, c.Off+c.Len, more(c.Pairs))
		for _, a := range []advise.Access{c.First, c.Second} {
			fmt.Fprintf(w, "    %.6f to %.6f s  %s on %s  %s\n", float64(a.Start-begin)/1e9, float64(a.End-begin)/1e9, a.Who, a.Node, a.Call)
		}
		fmt.Fprintf(w, "    %s\n", c.Missing)
	}
	if f.Margin > 0 && f.Model.Need == advise.NeedSession {
		fmt.Fprintf(w, "  the closest call: opened %v after another process had synchronised; if nothing in the program sees to that, it is chance\n",
			f.Margin.Round(time.Microsecond))
	}
	if b := breaks[f.Advice]; b != "" {
		fmt.Fprintf(w, "  %v would break by %s\n", f.Advice, b)
	}
	if f.Hint != "" {
		fmt.Fprintf(w, "  %s\n", f.Hint)
	}
	if f.Partial {
		fmt.Fprintf(w, "  this file is in too many pieces: not all of them were looked at\n")
	}
}

func more(pairs int) string {
	if pairs > 1 {
		return fmt.Sprintf(", and %d more", pairs-1)
	}
	return ""
}

// people is a list of names, shortened.
func people(names []string) string {
	switch n := len(names); {
	case n == 0:
		return "nobody"
	case n > 4:
		return fmt.Sprintf("%s, %s ... %s (%d)", names[0], names[1], names[n-1], n)
	}
	return strings.Join(names, ", ")
}

// ordersText says how many pairs are ordered by what.
func ordersText(orders map[advise.Order]int) string {
	words := map[advise.Order]string{
		advise.ByLock: "by a lock", advise.ByBarrier: "by a barrier", advise.ByOpen: "by an open after the close", advise.ByTime: "by time alone",
	}
	var out []string
	for _, o := range slices.Sorted(maps.Keys(orders)) {
		out = append(out, fmt.Sprintf("%d are ordered %s", orders[o], words[o]))
	}
	return strings.Join(out, ", ")
}

// printCommands prints how to set what is advised: of each directory the
// strongest mode that one of its files needs, as what a program makes gets the
// mode of the directory.
func printCommands(w io.Writer, r *advise.Report, mount string) {
	modes := map[string]consistency.Mode{}
	for i := range r.Files {
		f := &r.Files[i]
		if _, auto := consistency.Auto(path.Base(f.Path)); auto || f.Path == "" {
			continue
		}
		dir := path.Join(mount, path.Dir(f.Path))
		if m, ok := modes[dir]; !ok || f.Advice < m {
			modes[dir] = f.Advice
		}
	}
	fmt.Fprintln(w, "\nTo set it for what is made there from now on (-R: also for what is there):")
	for _, dir := range slices.Sorted(maps.Keys(modes)) {
		fmt.Fprintf(w, "  zoidfs consistency set %s %v\n", dir, modes[dir])
	}
}
