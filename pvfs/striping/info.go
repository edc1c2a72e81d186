package striping

import (
	"iter"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Xattr is the extended attribute of files and directories whose value is
// their Info in JSON. It is not stored and not listed. Set on a directory, to a
// Wish in JSON, it replaces the wish; removed, it removes the wish.
const Xattr = "user.zoidfs.stripe"

// The values of Info.Type.
const (
	TypeFile      = "file"
	TypeDirectory = "directory"
)

// Where what holds for new files in a directory comes from.
const (
	FromDirectory  = "directory"
	FromFileSystem = "file system"
)

// Info is how the data of a file lie, or how those of a new file in a directory
// will. Its JSON form is read by scripts: fields are only ever added.
type Info struct {
	Type        string `json:"type"`
	Dist        string `json:"dist"`
	Params      string `json:"params,omitempty"`
	StripSize   int64  `json:"strip_size,omitempty"` // bytes; 0: none, or several
	StripeWidth int64  `json:"stripe_width"`         // bytes
	NumServers  int    `json:"num_servers"`          // of a stuffed file: once it has grown

	// Of a file. Servers are in the order of the distribution; a stuffed file
	// has one, which holds all of it.
	Size    int64    `json:"size"`
	Stuffed bool     `json:"stuffed"`
	Servers []Server `json:"servers,omitempty"`

	// Of a directory: what it wishes itself, and where the distribution and
	// the number of servers come from. Problem says why no file can be made.
	Wish        *Wish  `json:"hints,omitempty"`
	DistFrom    string `json:"dist_from,omitempty"`
	ServersFrom string `json:"servers_from,omitempty"`
	Problem     string `json:"problem,omitempty"`

	DataServers    int `json:"data_servers"`    // of the file system
	DefaultServers int `json:"default_servers"` // of a file if nothing else is wished
}

// Server is the part of a file that one server holds.
type Server struct {
	Alias  string `json:"alias"`
	Addr   string `json:"addr"`          // host:port
	Handle uint64 `json:"handle,string"` // of the datafile; text, as JavaScript has no such numbers
	Bytes  int64  `json:"bytes"`         // of the datafile, with the holes before its end
}

// Limits is what the file system can fulfil.
func (i *Info) Limits() Limits { return Limits{Servers: i.DataServers, Default: i.DefaultServers} }

// Extent is bytes that are contiguous both in the file and on one server.
type Extent struct {
	Off    int64 `json:"off"` // logical
	Len    int64 `json:"len"` // more than 0
	Server int   `json:"server"`
	Phys   int64 `json:"phys"` // offset in the server's datafile
}

// Extents is the map of a file: all extents up to its size, in order, none of
// which could be joined with the next.
func (i *Info) Extents() (iter.Seq[Extent], error) {
	var d dist.Distribution = dist.Basic{}
	if !i.Stuffed {
		p, err := Parse(i.Dist, SplitParams(i.Params))
		if err != nil {
			return nil, err
		}
		if d, err = New(&p, len(i.Servers)); err != nil {
			return nil, err
		}
	}
	return func(yield func(Extent) bool) {
		var e Extent
		for rest := (extent.Extent{Len: i.Size}); !rest.Empty(); {
			var r dist.Run
			r, rest = dist.Next(d, rest)
			if e.Len > 0 && e.Server == r.Server && e.Phys+e.Len == r.Phys {
				e.Len += r.Len
				continue
			}
			if e.Len > 0 && !yield(e) {
				return
			}
			e = Extent{Off: r.Off, Len: r.Len, Server: r.Server, Phys: r.Phys}
		}
		if e.Len > 0 {
			yield(e)
		}
	}, nil
}

// Describe fills in the distribution d over n servers.
func (i *Info) Describe(d *wire.Dist, n int) {
	i.Dist, i.Params, i.NumServers = d.Name, Params(d), n
	i.StripSize, i.StripeWidth = Strip(d), Width(d, n)
}
