package counters

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Collector gives the counts of this process to Prometheus.
type Collector struct {
	snapshot func() Stats

	calls, requests, pvfs  *prometheus.Desc
	appBytes, rpcBytes, io *prometheus.Desc
}

// NewCollector returns a Collector that calls snapshot at every scrape.
func NewCollector(snapshot func() Stats) *Collector {
	desc := func(name, help, label string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{label}, nil)
	}
	return &Collector{
		snapshot: snapshot,
		calls:    desc("zoidfs_app_calls_total", "Calls from applications that reached this mount.", "op"),
		appBytes: desc("zoidfs_app_bytes_total", "Bytes of file data that applications read and wrote.", "direction"),
		requests: desc("zoidfs_rpc_requests_total", "Requests from this mount to I/O nodes.", "op"),
		rpcBytes: desc("zoidfs_rpc_bytes_total", "Bytes between this mount and I/O nodes.", "direction"),
		pvfs:     desc("zoidfs_pvfs_requests_total", "Requests to PVFS2 servers; of a server, those that came to it.", "op"),
		io:       desc("zoidfs_pvfs_bytes_total", "Bytes of file data read from and written to PVFS2 servers.", "direction"),
	}
}

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.calls, c.appBytes, c.requests, c.rpcBytes, c.pvfs, c.io} {
		ch <- d
	}
}

// Collect sends the counts as they are now.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	send := func(d *prometheus.Desc, n uint64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label)
	}
	ops := func(d *prometheus.Desc, m map[string]uint64) {
		for op, n := range m {
			send(d, n, op)
		}
	}
	ops(c.calls, s.App.Calls)
	send(c.appBytes, s.App.BytesRead, "read")
	send(c.appBytes, s.App.BytesWritten, "written")
	ops(c.requests, s.RPC.Requests)
	send(c.rpcBytes, s.RPC.BytesSent, "sent")
	send(c.rpcBytes, s.RPC.BytesReceived, "received")
	ops(c.pvfs, s.PVFS.Requests)
	send(c.io, s.PVFS.BytesRead, "read")
	send(c.io, s.PVFS.BytesWritten, "written")
}
