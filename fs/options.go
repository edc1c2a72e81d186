package fs

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Options say what to mount and where.
type Options struct {
	Mountpoint string            // an existing directory
	Client     *ionclient.Client // connected; stays the caller's, who closes it after Run
	FSName     string            // first column of mount and df; empty means "zoidfs"
	AllowOther bool              // let users other than the one who mounts use it
	ReadOnly   bool

	// Consistency is the mode of files for which none is chosen; Default means
	// Strong.
	Consistency consistency.Mode
	Visibility  time.Duration // after which an eventual write is seen everywhere; 0: DefaultVisibility
	CacheBytes  int64         // of file data in memory; 0: DefaultCache
	// Memory is where these lie, if it is to be shown to I/O nodes of this machine:
	// CacheBytes long, and the client's, too. nil: memory of the mount's own.
	Memory *shared.Region
	// NoCollective has every call pass as it comes, merged with none and waiting
	// for none; what leases allow is kept all the same.
	NoCollective bool
	Guard        Guard // against races in weak modes
	// NoIOURing has all requests come from /dev/fuse, also where the kernel offers a
	// queue for each processor.
	NoIOURing bool

	Version string       // of the software, shown in the status
	Logger  *slog.Logger // nil discards
}

// What Options are without a choice, and their bounds. A mount that sent its
// writes more often than MinVisibility would better be a strong one; less memory
// than MinCache could not hold what a few programs have under way.
const (
	DefaultVisibility = 5 * time.Second
	MinVisibility     = 100 * time.Millisecond
	MaxVisibility     = time.Hour
	DefaultCache      = 256 << 20
	MinCache          = 16 << 20
)

// Validate returns an error that names the first field which is unusable.
func (o Options) Validate() error {
	switch {
	case o.Mountpoint == "":
		return errors.New("mount: no mount point given")
	case o.Client == nil:
		return errors.New("mount: no client given")
	case strings.ContainsAny(o.FSName, ",\n\x00"):
		return errors.New("mount: the file system name must not contain a comma or a newline")
	case !o.Consistency.Valid():
		return fmt.Errorf("mount: there is no consistency mode %v", o.Consistency)
	case o.Visibility != 0 && (o.Visibility < MinVisibility || o.Visibility > MaxVisibility):
		return fmt.Errorf("mount: visibility %v is not between %v and %v", o.Visibility, MinVisibility, MaxVisibility)
	case o.CacheBytes != 0 && o.CacheBytes < MinCache:
		return fmt.Errorf("mount: a cache of %d bytes is less than %d", o.CacheBytes, MinCache)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.FSName == "" {
		o.FSName = fsType
	}
	o.Consistency = o.Consistency.Or(consistency.Strong)
	o.Visibility = cmp.Or(o.Visibility, DefaultVisibility)
	o.CacheBytes = cmp.Or(o.CacheBytes, DefaultCache)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
