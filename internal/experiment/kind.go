package experiment

import (
	"slices"
	"time"
)

// Kind is a kind of workload: which parameters it has and what it measures.
type Kind struct {
	Name   string
	About  string   // one line
	Params []string // besides kind, about and transfer
	Phases []string // that are measured, in order
	Unit   string   // of the result of a phase
}

// The names of the kinds.
const (
	Checkpoint = "checkpoint"
	Restart    = "restart"
	Exchange   = "exchange"
	Input      = "input"
	Log        = "log"
	Metadata   = "metadata"
	Load       = "load"
	Update     = "update"
	Command    = "command"
)

// Units of results: two rates, and the median time until others see a write.
const (
	UnitMiB    = "MiB/s"
	UnitOp     = "op/s"
	UnitSecond = "s"
)

// Kinds are all kinds of workloads.
func Kinds() []Kind {
	return []Kind{
		{Checkpoint, "all ranks write, into one file or a file each", []string{"pattern", "size", "sync"}, []string{"write"}, UnitMiB},
		{Restart, "each rank reads what a rank of another node wrote before", []string{"pattern", "size"}, []string{"read"}, UnitMiB},
		{Exchange, "one half of the ranks writes items that the other half waits for", []string{"notify", "count", "interval", "sync"}, []string{"exchange"}, UnitSecond},
		{Input, "small random reads of files that do not change, as in deep learning", []string{"files", "size", "count", "reopen"}, []string{"read"}, UnitOp},
		{Log, "all ranks append records to one file", []string{"count"}, []string{"append"}, UnitOp},
		{Metadata, "each rank creates, looks up, opens, lists and removes files", []string{"count", "shared"}, []string{"create", "stat", "open", "list", "unlink"}, UnitOp},
		{Load, "all ranks search, open and map the same files, as a program and its libraries", []string{"files", "size"}, []string{"load"}, UnitOp},
		{Update, "all ranks read, change and write back records under locks", []string{"count", "records"}, []string{"update"}, UnitOp},
		{Command, "a program of your own", []string{"command", "each", "parse", "figure", "unit", "better"}, []string{"command"}, UnitOp},
	}
}

// KindOf returns the kind called name; ok is false if there is none.
func KindOf(name string) (k Kind, ok bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

func kindNames() (out []string) {
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

// Patterns of checkpoint and restart.
const (
	Segmented      = "segmented"        // one file, each rank one piece of it
	Strided        = "strided"          // one file, the transfers of the ranks by turns
	Nested         = "nested"           // one file, blocks of eight transfers by turns, within them the transfers in reverse
	FilePerProcess = "file-per-process" // a file each
)

// What a writer does after a write so that others see it.
const (
	SyncMode  = "mode"  // the least that the mode asks for
	SyncNone  = "none"  // nothing
	SyncFsync = "fsync" //
	SyncClose = "close" // close, and open again
)

// Ways to learn of a new item.
const (
	Polling = "polling" // by reading it again and again
	Message = "message" // from its writer, beside the file system
)

// Workload is what the ranks of a run do. Which of the fields count depends on
// the kind.
type Workload struct {
	Name     string        `json:"name"`
	Kind     string        `json:"kind"`
	About    string        `json:"about,omitempty"`
	Transfer int64         `json:"transfer,omitempty"` // bytes of a call; 0: as the matrix says
	Pattern  string        `json:"pattern,omitempty"`
	Sync     string        `json:"sync,omitempty"`
	Size     int64         `json:"size,omitempty"`     // bytes of a rank, or of a file
	Files    int           `json:"files,omitempty"`    // in all
	Records  int           `json:"records,omitempty"`  // in all
	Count    int           `json:"count,omitempty"`    // operations of a rank
	Shared   bool          `json:"shared,omitempty"`   // one directory for all
	Reopen   bool          `json:"reopen,omitempty"`   // an open for each operation
	Notify   string        `json:"notify,omitempty"`   // how readers learn of an item
	Interval time.Duration `json:"interval,omitempty"` // between items

	Command string   `json:"command,omitempty"` // for the shell
	Each    bool     `json:"each,omitempty"`    // one copy for each rank
	Parse   []string `json:"parse,omitempty"`   // regular expressions with named groups
	Figure  string   `json:"figure,omitempty"`  // the group that is the result
	Unit    string   `json:"unit,omitempty"`    // of the figure
	Better  string   `json:"better,omitempty"`  // "higher" or "lower"
}

// defaults returns a workload of a kind with the parameters that it has if the
// file says nothing.
func defaults(kind string) Workload {
	w := Workload{Kind: kind}
	switch kind {
	case Checkpoint:
		w.Pattern, w.Size, w.Sync = Strided, 4<<20, SyncNone
	case Restart:
		w.Pattern, w.Size = Strided, 4<<20
	case Exchange:
		w.Notify, w.Count, w.Interval, w.Sync = Polling, 50, 10*time.Millisecond, SyncMode
	case Input:
		w.Files, w.Size, w.Count = 8, 2<<20, 256
	case Log:
		w.Count = 50
	case Metadata:
		w.Count, w.Shared = 50, true
	case Load:
		w.Files, w.Size = 32, 256<<10
	case Update:
		w.Count, w.Records = 25, 4
	case Command:
		w.Figure = "seconds"
	}
	return w
}

// Directions in which a figure is better.
const (
	Higher = "higher"
	Lower  = "lower"
)

// Targets of faults.
const (
	TargetION    = "ion"
	TargetServer = "server"
	TargetNode   = "node"
)

// NoFault is the name of the absence of a fault.
const NoFault = "none"

// Fault is the death of a process in the middle of a run.
type Fault struct {
	Name     string        `json:"name"`
	Target   string        `json:"target"`             // TargetION, TargetServer or TargetNode
	Index    int           `json:"index"`              // which of them
	After    time.Duration `json:"after,omitempty"`    // since the measured phase began
	Fraction float64       `json:"fraction,omitempty"` // of its calls, if After is 0
	Restart  time.Duration `json:"restart"`            // how long it stays dead
}
