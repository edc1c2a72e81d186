package fsconf

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// GenOptions describes a new file system. Zero values of optional fields are
// replaced by the defaults that pvfs2-genconfig has.
type GenOptions struct {
	FSName  string
	FSID    int32
	Servers []ServerSpec // each one serves metadata and data; at least one

	NoStuffing             bool
	FlowBufferSize         int // bytes, 0: 262144
	DefaultNumDFiles       int // 0: all data servers
	StripSize              int64
	DistrDirServersInitial int // 0: 1
	DistrDirServersMax     int // 0: 1
	DistrDirSplitSize      int // 0: 100
	SyncMeta               bool
	SyncData               bool
}

// ServerSpec is one server of a new file system.
type ServerSpec struct {
	Alias string
	Addr  string // host:port or tcp://host:port
	Dir   string // absolute; data, meta and log of the server lie in it
}

// Validate names the first field that is wrong.
func (o GenOptions) Validate() error {
	if o.FSName == "" || strings.ContainsAny(o.FSName, "/ \t\n\"'#<>") {
		return fmt.Errorf("FSName %q is not one plain word", o.FSName)
	}
	if o.FSID == 0 {
		return errors.New("FSID is zero")
	}
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return fmt.Errorf("Servers has %d entries, not 1 to %d", len(o.Servers), maxServers)
	}
	for i, s := range o.Servers {
		if s.Alias == "" || strings.ContainsAny(s.Alias, " ,\t\n\"'#<>") {
			return fmt.Errorf("Servers[%d].Alias %q is not one plain word", i, s.Alias)
		}
		if _, err := HostPort(s.url()); err != nil {
			return fmt.Errorf("Servers[%d].Addr: %w", i, err)
		}
		if !filepath.IsAbs(s.Dir) || strings.ContainsAny(s.Dir, "\n\"") {
			return fmt.Errorf("Servers[%d].Dir %q is not an absolute path", i, s.Dir)
		}
	}
	return nil
}

// Generate writes the text of a configuration file that every server of the
// new file system, OrangeFS or embedded, reads unchanged. Handles are divided
// as pvfs2-genconfig does: [3, 2^62) for metadata, [2^62, 2^63) for data, in
// equal parts.
func Generate(o GenOptions) (string, error) {
	if err := o.Validate(); err != nil {
		return "", fmt.Errorf("generate fs.conf: %w", err)
	}
	var b strings.Builder
	b.WriteString(defaultsText)
	fmt.Fprintf(&b, "\tDataStorageSpace %s\n\tMetadataStorageSpace %s\n\n\tLogFile %s\n\n", quote(o.Servers[0].Dir, "data"), quote(o.Servers[0].Dir, "meta"), quote(o.Servers[0].Dir, "log"))
	b.WriteString("\t<Security>\n\t\tTurnOffTimeouts yes\n\t</Security>\n</Defaults>\n\n<Aliases>\n")
	for _, s := range o.Servers {
		fmt.Fprintf(&b, "\tAlias %s %s\n", s.Alias, s.url())
	}
	b.WriteString("</Aliases>\n\n")
	o.fileSystem(&b)
	for _, s := range o.Servers {
		fmt.Fprintf(&b, "\n<ServerOptions>\n\tServer %s\n\tDataStorageSpace %s\n\tMetadataStorageSpace %s\n\tLogFile %s\n</ServerOptions>\n",
			s.Alias, quote(s.Dir, "data"), quote(s.Dir, "meta"), quote(s.Dir, "log"))
	}
	text := b.String()
	if _, err := Parse(text); err != nil {
		return "", fmt.Errorf("generate fs.conf: %w", err)
	}
	return text, nil
}

const defaultsText = `<Defaults>
	UnexpectedRequests 50
	EventLogging none
	EnableTracing no
	LogStamp datetime
	BMIModules bmi_tcp
	FlowModules flowproto_multiqueue
	PerfUpdateInterval 1000
	ServerJobBMITimeoutSecs 30
	ServerJobFlowTimeoutSecs 30
	ClientJobBMITimeoutSecs 300
	ClientJobFlowTimeoutSecs 300
	ClientRetryLimit 5
	ClientRetryDelayMilliSecs 2000
	PrecreateBatchSize 0,1024,1024,1024,32,1024,0
	PrecreateLowThreshold 0,256,256,256,16,256,0

`

func (o GenOptions) fileSystem(b *strings.Builder) {
	fmt.Fprintf(b, "<FileSystem>\n\tName %s\n\tID %d\n\tRootHandle 1048576\n\tFileStuffing %s\n", o.FSName, uint32(o.FSID), yes(!o.NoStuffing))
	if o.FlowBufferSize != 0 {
		fmt.Fprintf(b, "\tFlowBufferSizeBytes %d\n", o.FlowBufferSize)
	}
	if o.DefaultNumDFiles != 0 {
		fmt.Fprintf(b, "\tDefaultNumDFiles %d\n", o.DefaultNumDFiles)
	}
	fmt.Fprintf(b, "\tDistrDirServersInitial %d\n\tDistrDirServersMax %d\n\tDistrDirSplitSize %d\n",
		cmp.Or(o.DistrDirServersInitial, 1), cmp.Or(o.DistrDirServersMax, 1), cmp.Or(o.DistrDirSplitSize, 100))
	o.ranges(b, "MetaHandleRanges", 3, 1<<62)
	o.ranges(b, "DataHandleRanges", 1<<62, 1<<63)
	if o.StripSize != 0 {
		fmt.Fprintf(b, "\t<Distribution>\n\t\tName simple_stripe\n\t\tParam strip_size\n\t\tValue %d\n\t</Distribution>\n", o.StripSize)
	}
	fmt.Fprintf(b, "\t<StorageHints>\n\t\tTroveSyncMeta %s\n\t\tTroveSyncData %s\n\t\tTroveMethod alt-aio\n\t</StorageHints>\n</FileSystem>\n",
		yes(o.SyncMeta), yes(o.SyncData))
}

// ranges divides [first, end) into one range a server; the borders are those
// of equal parts of [0, 2^62).
func (o GenOptions) ranges(b *strings.Builder, section string, first, end uint64) {
	n := uint64(len(o.Servers))
	base := first &^ (1<<62 - 1)
	part := (end - base) / n
	fmt.Fprintf(b, "\t<%s>\n", section)
	for i, s := range o.Servers {
		lo, hi := base+uint64(i)*part, base+uint64(i+1)*part
		if i == 0 {
			lo = first
		}
		if i == len(o.Servers)-1 {
			hi = end
		}
		fmt.Fprintf(b, "\t\tRange %s %d-%d\n", s.Alias, lo, hi-1)
	}
	fmt.Fprintf(b, "\t</%s>\n", section)
}

func (s ServerSpec) url() string {
	if strings.Contains(s.Addr, "://") {
		return s.Addr
	}
	return "tcp://" + s.Addr
}

func quote(dir, name string) string {
	p := filepath.Join(dir, name)
	if strings.ContainsAny(p, " \t#'") {
		return `"` + p + `"`
	}
	return p
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
