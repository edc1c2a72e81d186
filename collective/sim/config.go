package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/zoidfs/zoidfs/collective"
)

// Config is what is simulated. Defaults fills in what is zero.
type Config struct {
	Ranks, Nodes, IONs, Servers int

	Pattern Pattern
	Read    bool          // ranks read what the pattern says, or else write it
	Calls   int           // of each rank
	Size    int64         // bytes of each call
	Denied  bool          // nodes may keep nothing of what they read, as where others write: their READs become rounds
	Barrier bool          // no rank makes its next call before all have made theirs
	Jitter  time.Duration // a rank computes for up to so long between two calls
	Absent  float64       // share of the ranks that do not take part
	Seed    uint64

	Strip, Domain int64 // bytes
	Memory        int64 // bytes of an I/O node's cache, of which dirty ones may fill half
	CBBuffer      int64 // bytes that an aggregator of two-phase I/O moves at a time
	Rounds        collective.RoundOptions
	Model         Model
}

// Model is what things take. A link, an I/O node's processor and a server do
// one thing after the other; what waits for them queues.
type Model struct {
	NetLatency       time.Duration // from a node to an I/O node, or from there to a server
	NodeBandwidth    float64       // bytes a second into and out of a compute node
	IONBandwidth     float64       // the same of an I/O node
	CallTime         time.Duration // of a call that the node answers itself
	IONTime          time.Duration // of an I/O node's processor for a request
	ServerTime       time.Duration // of a server for a request of data
	ServerMetaTime   time.Duration // of a server for a request of metadata
	ServerExtentTime time.Duration // of a server for each extent of a request after the first
	ServerBandwidth  float64       // bytes a second of a server
}

// DefaultModel is a cluster of today: links of 200 Gbit/s, servers of a few
// NVMe disks.
var DefaultModel = Model{
	NetLatency: 10 * time.Microsecond, NodeBandwidth: 25e9, IONBandwidth: 25e9,
	CallTime: 5 * time.Microsecond, IONTime: 8 * time.Microsecond,
	ServerTime: 100 * time.Microsecond, ServerMetaTime: 200 * time.Microsecond,
	ServerExtentTime: time.Microsecond, ServerBandwidth: 5e9,
}

// Defaults returns c with what is zero filled in.
func (c Config) Defaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.Ranks, 1024)
	set(&c.Nodes, max(1, c.Ranks/64))
	set(&c.IONs, max(1, c.Nodes/16))
	set(&c.Servers, 16)
	set(&c.Calls, 16)
	set64 := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set64(&c.Size, 32<<10)
	set64(&c.Strip, 64<<10)
	set64(&c.Domain, collective.DefaultDomainSize)
	set64(&c.Memory, 1<<30)
	set64(&c.CBBuffer, 16<<20)
	if c.Model == (Model{}) {
		c.Model = DefaultModel
	}
	return c
}

// Limits of what can be simulated in reasonable time and memory.
const (
	maxRanks = 1 << 20
	maxCalls = 1 << 24 // of all ranks
)

// Validate reports the first field that makes no sense.
func (c Config) Validate() error {
	for _, n := range []struct {
		what  string
		value int64
	}{
		{"ranks", int64(c.Ranks)}, {"nodes", int64(c.Nodes)}, {"I/O nodes", int64(c.IONs)}, {"servers", int64(c.Servers)},
		{"calls", int64(c.Calls)}, {"bytes of a call", c.Size}, {"bytes of a strip", c.Strip}, {"bytes of a domain", c.Domain},
		{"bytes of a buffer", c.CBBuffer}, {"bytes of memory", c.Memory},
	} {
		if n.value < 1 {
			return fmt.Errorf("%d %s cannot be simulated", n.value, n.what)
		}
	}
	switch {
	case c.Ranks > maxRanks || c.Ranks*c.Calls > maxCalls:
		return fmt.Errorf("%d ranks with %d calls each are too many: at most %d ranks and %d calls", c.Ranks, c.Calls, maxRanks, maxCalls)
	case c.Nodes > c.Ranks:
		return fmt.Errorf("%d nodes for %d ranks", c.Nodes, c.Ranks)
	case c.Pattern >= Pattern(len(patterns)):
		return fmt.Errorf("no such pattern: %d", c.Pattern)
	case c.Absent < 0 || c.Absent >= 1:
		return fmt.Errorf("a share of %g of the ranks cannot be absent", c.Absent)
	case c.Jitter < 0:
		return fmt.Errorf("a jitter of %v", c.Jitter)
	case c.Size > c.Domain:
		return fmt.Errorf("a call of %d bytes is larger than a domain of %d", c.Size, c.Domain)
	case c.Size > (1<<62)/int64(c.Ranks)/int64(c.Calls):
		return errors.New("the file would be larger than files can be")
	}
	if err := c.Model.validate(); err != nil {
		return err
	}
	return c.Rounds.Validate()
}

func (m Model) validate() error {
	if m.NodeBandwidth <= 0 || m.IONBandwidth <= 0 || m.ServerBandwidth <= 0 {
		return errors.New("a bandwidth is not positive")
	}
	for _, d := range []time.Duration{m.NetLatency, m.CallTime, m.IONTime, m.ServerTime, m.ServerMetaTime, m.ServerExtentTime} {
		if d < 0 {
			return fmt.Errorf("%v is no time that anything takes", d)
		}
	}
	return nil
}

// transfer is what it takes to move n bytes.
func transfer(n int64, bandwidth float64) time.Duration {
	return time.Duration(float64(n) / bandwidth * 1e9)
}
