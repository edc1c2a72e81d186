// Package fsconf reads and writes the configuration file of OrangeFS servers.
//
// The same text is read by every server and, through the GETCONFIG request, by
// every client, so it must be byte-identical on all servers of a file system.
// Parse turns the text into values and answers which server owns a handle;
// Generate writes a text that OrangeFS itself accepts. The package does no I/O
// and holds no state; a parsed Config is not changed and safe for concurrent use.
//
// Source: PROTOCOL.md §9; OrangeFS src/common/misc/server-config.c.
package fsconf

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
)

// DefaultPort is the TCP port of a server whose address names none.
const DefaultPort = "3334"

// MaxText is the longest configuration text, in bytes, that a server sends.
const MaxText = 65536

// Limits of values taken from the text.
const (
	maxServers    = 4096
	maxFlowBuffer = 16 << 20 // the largest payload of one message
	minFlowBuffer = 4096
	maxAlias      = 255
)

// Config is a parsed configuration file.
type Config struct {
	Text        string       // the text it was parsed from, unchanged
	Defaults    Defaults     // the <Defaults> section
	Aliases     []Alias      // in the order of the text, names are unique
	Servers     []Server     // the <ServerOptions> sections, one an alias at most
	FileSystems []FileSystem // in the order of the text, at least one
	Warnings    []string     // keys and sections that were ignored, with line numbers
}

// Defaults holds what <Defaults> sets for all servers. Times are in seconds
// unless the name says otherwise; zero means that the text is silent.
type Defaults struct {
	UnexpectedRequests     int
	EventLogging           string
	LogStamp               string
	BMIModules             []string
	FlowModules            []string
	PerfUpdateInterval     int
	ServerJobBMITimeout    int
	ServerJobFlowTimeout   int
	ClientJobBMITimeout    int
	ClientJobFlowTimeout   int
	ClientRetryLimit       int
	ClientRetryDelayMillis int
	PrecreateBatchSize     []int // per object type, 0 or 7 numbers
	PrecreateLowThreshold  []int // per object type, 0 or 7 numbers
	TCPBufferSend          int   // bytes
	TCPBufferReceive       int   // bytes
	TCPBindSpecific        bool
	DataStorageSpace       string
	MetadataStorageSpace   string
	LogFile                string
	TurnOffTimeouts        bool // capabilities and credentials never expire
}

// Alias is the short name of a server and its addresses, tcp:// ones first.
type Alias struct {
	Name  string
	Addrs []string // as in the text, such as tcp://host:3334
}

// Server holds the options of one server. Storage paths that its section does
// not set are those of Defaults.
type Server struct {
	Alias                string
	DataStorageSpace     string
	MetadataStorageSpace string
	LogFile              string
	line                 int
}

// FileSystem is one <FileSystem> section with the defaults of OrangeFS for
// what it does not say.
type FileSystem struct {
	Name                   string
	ID                     int32
	RootHandle             uint64
	FileStuffing           bool
	FlowBufferSize         int // bytes of one flow message
	FlowBuffers            int
	DefaultNumDFiles       int // 0: as many as there are data servers
	SmallFileSize          int
	TreeWidth              int
	TreeThreshold          int
	DistrDirServersInitial int
	DistrDirServersMax     int
	DistrDirSplitSize      int
	Meta                   []HandleRange // metadata servers, in order
	Data                   []HandleRange // data servers, in order
	Hints                  StorageHints
	Dist                   Distribution
	Export                 ExportOptions

	line   int
	owners []owned // sorted by first, none overlap
}

// HandleRange is the handles of one kind that one server owns.
type HandleRange struct {
	Alias  string
	Ranges []Range
}

// Range is the closed interval [First, Last] of handles.
type Range struct{ First, Last uint64 }

// StorageHints is the <StorageHints> section.
type StorageHints struct {
	SyncMeta bool   // metadata is durable when a request is answered
	SyncData bool   // so is data
	Method   string // TroveMethod
}

// Distribution is the default distribution of new files; Name is empty when
// the text is silent, which means simple_stripe.
type Distribution struct {
	Name   string
	Params []Param
}

// Param is one parameter of a distribution, such as strip_size.
type Param struct{ Name, Value string }

// ExportOptions says which clients are restricted. Each list holds addresses
// or networks such as tcp://10.0.0.0@8, as in the text.
type ExportOptions struct {
	RootSquash, RootSquashExceptions []string
	AllSquash, AllSquashExceptions   []string
	ReadOnly                         []string
	TrustedNetwork, TrustedPort      []string
	AnonUID, AnonGID                 uint32
}

type owned struct {
	Range
	alias string
}

// FileSystem returns the file system of that name.
func (c *Config) FileSystem(name string) (*FileSystem, bool) {
	i := slices.IndexFunc(c.FileSystems, func(f FileSystem) bool { return f.Name == name })
	if i < 0 {
		return nil, false
	}
	return &c.FileSystems[i], true
}

// Names lists the names of all file systems, in the order of the text.
func (c *Config) Names() []string {
	out := make([]string, len(c.FileSystems))
	for i := range c.FileSystems {
		out[i] = c.FileSystems[i].Name
	}
	return out
}

// Addr returns the tcp address host:port of the server called alias; ok is
// false when there is no such alias or it has no tcp address.
func (c *Config) Addr(alias string) (hostPort string, ok bool) {
	for _, a := range c.Aliases {
		if a.Name != alias {
			continue
		}
		for _, s := range a.Addrs {
			if hp, err := HostPort(s); err == nil {
				return hp, true
			}
		}
	}
	return "", false
}

// URL returns the tcp:// address of the server called alias as the text gives
// it, the form that layouts on the wire want; "" when there is none.
func (c *Config) URL(alias string) string {
	for _, a := range c.Aliases {
		if a.Name != alias {
			continue
		}
		for _, s := range a.Addrs {
			if strings.HasPrefix(s, "tcp://") {
				return s
			}
		}
	}
	return ""
}

// Server returns the options of the server called alias, with the paths of
// <Defaults> where it has none of its own. ok is false for an unknown alias.
func (c *Config) Server(alias string) (s Server, ok bool) {
	if !slices.ContainsFunc(c.Aliases, func(a Alias) bool { return a.Name == alias }) {
		return Server{}, false
	}
	s.Alias = alias
	if i := slices.IndexFunc(c.Servers, func(s Server) bool { return s.Alias == alias }); i >= 0 {
		s = c.Servers[i]
	}
	s.DataStorageSpace = cmp.Or(s.DataStorageSpace, c.Defaults.DataStorageSpace)
	s.MetadataStorageSpace = cmp.Or(s.MetadataStorageSpace, c.Defaults.MetadataStorageSpace)
	s.LogFile = cmp.Or(s.LogFile, c.Defaults.LogFile)
	return s, true
}

// Owner returns the alias of the server that owns handle h; ok is false when
// no range holds h.
func (f *FileSystem) Owner(h uint64) (alias string, ok bool) {
	i, found := slices.BinarySearchFunc(f.owners, h, func(o owned, h uint64) int { return cmp.Compare(o.First, h) })
	if !found {
		i--
	}
	if i < 0 || h > f.owners[i].Last {
		return "", false
	}
	return f.owners[i].alias, true
}

// IsMeta reports whether alias is a metadata server of f.
func (f *FileSystem) IsMeta(alias string) bool { return hasAlias(f.Meta, alias) }

// IsData reports whether alias is a data server of f.
func (f *FileSystem) IsData(alias string) bool { return hasAlias(f.Data, alias) }

// MetaRanges returns the metadata handle ranges of alias; nil if it has none.
func (f *FileSystem) MetaRanges(alias string) []Range { return rangesOf(f.Meta, alias) }

// DataRanges returns the data handle ranges of alias; nil if it has none.
func (f *FileSystem) DataRanges(alias string) []Range { return rangesOf(f.Data, alias) }

// Aliases lists every server of f once, metadata servers first.
func (f *FileSystem) Aliases() []string {
	var out []string
	for _, h := range slices.Concat(f.Meta, f.Data) {
		if !slices.Contains(out, h.Alias) {
			out = append(out, h.Alias)
		}
	}
	return out
}

// Param returns the value of the named distribution parameter; names are
// compared without regard to case.
func (d Distribution) Param(name string) (value string, ok bool) {
	for _, p := range d.Params {
		if strings.EqualFold(p.Name, name) {
			return p.Value, true
		}
	}
	return "", false
}

// HostPort turns tcp://host[:port] into host:port.
func HostPort(url string) (string, error) {
	rest, ok := strings.CutPrefix(url, "tcp://")
	rest = strings.TrimSuffix(rest, "/")
	if !ok || rest == "" || strings.ContainsAny(rest, "/@ \t") {
		return "", fmt.Errorf("address %q is not tcp://host:port", url)
	}
	if host, port, err := net.SplitHostPort(rest); err == nil {
		if host == "" || port == "" {
			return "", fmt.Errorf("address %q is not tcp://host:port", url)
		}
		return rest, nil
	}
	return net.JoinHostPort(strings.Trim(rest, "[]"), DefaultPort), nil
}

func hasAlias(hs []HandleRange, alias string) bool {
	return slices.ContainsFunc(hs, func(h HandleRange) bool { return h.Alias == alias })
}

func rangesOf(hs []HandleRange, alias string) []Range {
	var out []Range
	for _, h := range hs {
		if h.Alias == alias {
			out = append(out, h.Ranges...)
		}
	}
	return out
}
