// Package counters holds the three levels at which zoidfs counts what is asked
// of it: by applications of the mounts, by mounts of the I/O nodes, and by I/O
// nodes of the PVFS2 servers.
//
// It adds, subtracts and prints them, as JSON, as a table and as Prometheus
// metrics; the counting itself is done in the rooms. Values are plain data.
package counters

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// App counts the calls that reached mounts.
type App struct {
	Calls        map[string]uint64 `json:"calls"`
	BytesRead    uint64            `json:"bytes_read"`
	BytesWritten uint64            `json:"bytes_written"`
}

// RPC counts the requests from mounts to I/O nodes, as the mounts see them.
type RPC struct {
	Requests      map[string]uint64 `json:"requests"`
	BytesSent     uint64            `json:"bytes_sent"`
	BytesReceived uint64            `json:"bytes_received"`
}

// PVFS counts the requests to PVFS2 servers.
type PVFS struct {
	Requests     map[string]uint64 `json:"requests"`
	BytesRead    uint64            `json:"bytes_read"`
	BytesWritten uint64            `json:"bytes_written"`
}

// Stats are the counts of one process or of a system. A level at which a
// process does not count is zero.
type Stats struct {
	App  App  `json:"app"`
	RPC  RPC  `json:"rpc"`
	PVFS PVFS `json:"pvfs"`
}

// New returns Stats that print as objects, never as null.
func New() Stats {
	return Stats{
		App:  App{Calls: map[string]uint64{}},
		RPC:  RPC{Requests: map[string]uint64{}},
		PVFS: PVFS{Requests: map[string]uint64{}},
	}
}

// Add returns the sum of s and o, which are left as they are.
func (s Stats) Add(o Stats) Stats {
	return s.combine(o, func(a, b uint64) uint64 { return a + b })
}

// Sub returns what was counted since o was taken. A count that went back, as
// after a reset or a restart, is taken as having started from zero.
func (s Stats) Sub(o Stats) Stats {
	return s.combine(o, func(a, b uint64) uint64 {
		if a < b {
			return a
		}
		return a - b
	})
}

func (s Stats) combine(o Stats, f func(a, b uint64) uint64) Stats {
	both := func(a, b map[string]uint64) map[string]uint64 {
		out := make(map[string]uint64, len(a))
		for k := range a {
			out[k] = f(a[k], b[k])
		}
		for k := range b {
			out[k] = f(a[k], b[k])
		}
		return out
	}
	return Stats{
		App: App{
			Calls:        both(s.App.Calls, o.App.Calls),
			BytesRead:    f(s.App.BytesRead, o.App.BytesRead),
			BytesWritten: f(s.App.BytesWritten, o.App.BytesWritten),
		},
		RPC: RPC{
			Requests:      both(s.RPC.Requests, o.RPC.Requests),
			BytesSent:     f(s.RPC.BytesSent, o.RPC.BytesSent),
			BytesReceived: f(s.RPC.BytesReceived, o.RPC.BytesReceived),
		},
		PVFS: PVFS{
			Requests:     both(s.PVFS.Requests, o.PVFS.Requests),
			BytesRead:    f(s.PVFS.BytesRead, o.PVFS.BytesRead),
			BytesWritten: f(s.PVFS.BytesWritten, o.PVFS.BytesWritten),
		},
	}
}

// Total returns the sum of a map of counts.
func Total(m map[string]uint64) uint64 {
	var n uint64
	for _, v := range m {
		n += v
	}
	return n
}

// Table writes s for people: one block a level, the busiest operation first,
// and how many requests a call became.
func (s Stats) Table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	level := func(title, read, written string, r, wr uint64, ops map[string]uint64) {
		fmt.Fprintf(tw, "%s\t%d\t%s %s\t%s %s\n", title, Total(ops), read, Bytes(r), written, Bytes(wr))
		for _, op := range busiest(ops) {
			fmt.Fprintf(tw, "  %s\t%d\n", op, ops[op])
		}
	}
	level("calls from applications", "read", "written", s.App.BytesRead, s.App.BytesWritten, s.App.Calls)
	level("requests to I/O nodes", "received", "sent", s.RPC.BytesReceived, s.RPC.BytesSent, s.RPC.Requests)
	level("requests to PVFS2 servers", "read", "written", s.PVFS.BytesRead, s.PVFS.BytesWritten, s.PVFS.Requests)
	if calls := Total(s.App.Calls); calls > 0 {
		fmt.Fprintf(tw, "for each call\t%.2f\trequests to I/O nodes\n", float64(Total(s.RPC.Requests))/float64(calls))
		fmt.Fprintf(tw, "\t%.2f\trequests to PVFS2 servers\n", float64(Total(s.PVFS.Requests))/float64(calls))
	}
	return tw.Flush()
}

// busiest returns the operations that were counted, most frequent first.
func busiest(ops map[string]uint64) []string {
	keys := slices.DeleteFunc(slices.Collect(maps.Keys(ops)), func(k string) bool { return ops[k] == 0 })
	slices.SortFunc(keys, func(a, b string) int {
		if ops[a] != ops[b] {
			if ops[a] > ops[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return keys
}

// Bytes prints n with a binary unit.
func Bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}
