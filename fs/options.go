package fs

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Options say what to mount and where.
type Options struct {
	Mountpoint string            // an existing directory
	Client     *ionclient.Client // connected; stays the caller's, who closes it after Run
	FSName     string            // first column of mount and df; empty means "zoidfs"
	AllowOther bool              // let users other than the one who mounts use it
	ReadOnly   bool
	Version    string       // of the software, shown in the status
	Logger     *slog.Logger // nil discards
}

// Validate returns an error that names the first field which is unusable.
func (o Options) Validate() error {
	switch {
	case o.Mountpoint == "":
		return errors.New("mount: no mount point given")
	case o.Client == nil:
		return errors.New("mount: no client given")
	case strings.ContainsAny(o.FSName, ",\n\x00"):
		return errors.New("mount: the file system name must not contain a comma or a newline")
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.FSName == "" {
		o.FSName = fsType
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
