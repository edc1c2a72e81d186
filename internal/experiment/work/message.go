package work

import (
	"encoding/json"
	"net"
	"time"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// Config is what a rank is told to do.
type Config struct {
	Workload   experiment.Workload
	Mode       history.Mode
	Transfer   int64
	Seed       int64
	Dir        string        // as every rank sees it; empty at first
	Visibility time.Duration // of eventual
	Mark       float64       // tell when this share of the calls of the first phase is made; 0: do not
	LostNode   int           // a node that will be killed, -1 if none
	Rank, Size int
	Node       int   // of the rank
	Nodes      []int // of all ranks
}

// Part is what one rank measured of one phase. Times are nanoseconds of a clock
// that all processes of a machine share.
type Part struct {
	Name       string
	Start, End int64
	Ops, Bytes int64
	Latency    map[string]experiment.Histogram
}

// Report is what a rank reports when it has ended.
type Report struct {
	Parts     []Part
	Verified  int64    // bytes
	Wrong     int64    // of these
	Mistakes  []string // the first few of what was wrong
	Staleness []float64
	Unseen    int
	Events    map[string][]history.Event // a sample, by file
	Lost      bool                       // the rank's node was killed, as it was told
	Error     string                     // why the run makes no sense
}

// message is one line between a rank and the coordinator.
type message struct {
	Rank    int     `json:",omitempty"` // of a rank that begins
	Config  *Config `json:",omitempty"`
	Barrier string  `json:",omitempty"` // has been reached, or may be passed
	Lost    []int   `json:",omitempty"` // ranks, at a barrier that may be passed
	Mark    bool    `json:",omitempty"`
	Tell    *told   `json:",omitempty"`
	Report  *Report `json:",omitempty"`
}

// told is a message to another rank.
type told struct{ To, Item int }

// link is one end of a connection.
type link struct {
	net.Conn
	enc *json.Encoder
	dec *json.Decoder
}

func newLink(c net.Conn) *link { return &link{c, json.NewEncoder(c), json.NewDecoder(c)} }

func (l *link) send(m message) error { return l.enc.Encode(m) }

func (l *link) receive() (m message, err error) {
	err = l.dec.Decode(&m)
	return m, err
}
