package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/chart"
	"github.com/zoidfs/zoidfs/collective"
)

func printJSONLines(w io.Writer, all []played) error {
	enc := json.NewEncoder(w)
	for _, p := range all {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

// printPlayed prints a table for each pattern.
func printPlayed(w io.Writer, all []played) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	before := ""
	for _, p := range all {
		if p.Pattern != before {
			if before != "" {
				fmt.Fprintln(tw)
			}
			what := p.Pattern
			if p.Read {
				what += ", read"
			}
			fmt.Fprintf(tw, "%s\tranks\tnodes\tI/O nodes\tcalls\tto I/O nodes\tto servers\tbytes there\theld at most\ttime\t\n", what)
			before = p.Pattern
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", p.Way, p.Ranks, p.Nodes, p.IONs, p.Calls, p.IONRequests,
			p.ServerRequests, collective.Bytes(p.ServerBytes), collective.Bytes(p.IONMemory), collective.Took(p.Time))
	}
	return tw.Flush()
}

// createFile makes the file of that name; nil if it has none.
func createFile(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	return os.Create(name)
}

// fill has write fill the file, if there is one, and closes it.
func fill(f *os.File, all []played, write func(io.Writer, []played) error) error {
	if f == nil {
		return nil
	}
	return errors.Join(write(f, all), f.Close())
}

func writeCSV(w io.Writer, all []played) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{
		"pattern", "read", "way", "ranks", "nodes", "ions", "servers", "calls", "ion_requests", "server_requests", "ion_bytes",
		"server_bytes", "ion_memory", "time_ns", "node_rounds", "node_largest", "node_held", "node_vain", "node_held_ns", "ion_rounds",
	}); err != nil {
		return err
	}
	for _, p := range all {
		row := []string{p.Pattern, strconv.FormatBool(p.Read), p.Way}
		for _, n := range []int64{
			int64(p.Ranks), int64(p.Nodes), int64(p.IONs), int64(p.Servers), int64(p.Calls), int64(p.IONRequests), int64(p.ServerRequests),
			p.IONBytes, p.ServerBytes, p.IONMemory, int64(p.Time), int64(p.Node.Rounds), int64(p.Node.Largest), int64(p.Node.Held),
			int64(p.Node.Vain), int64(p.Node.HeldFor), int64(p.ION.Rounds),
		} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// writeSVG draws the requests to servers over the ranks, a line for each
// pattern and way.
func writeSVG(w io.Writer, all []played) error {
	c := chart.Chart{Title: "requests to PVFS2 servers", X: "ranks", Y: "requests"}
	at := map[string]int{}
	for _, p := range all {
		name := p.Pattern + ", " + p.Way
		i, ok := at[name]
		if !ok {
			i = len(c.Lines)
			at[name] = i
			c.Lines = append(c.Lines, chart.Line{Name: name})
		}
		c.Lines[i].X = append(c.Lines[i].X, float64(p.Ranks))
		c.Lines[i].Y = append(c.Lines[i].Y, float64(p.ServerRequests))
	}
	return c.WriteSVG(w)
}
