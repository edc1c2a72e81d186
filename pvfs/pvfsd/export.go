package pvfsd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// exports is the <ExportOptions> section: which clients are restricted, by
// their address. Without certificates it keeps honest clients apart, not
// dishonest ones, who can make up any capability.
type exports struct {
	readOnly               networks
	rootSquash, rootExcept networks
	allSquash, allExcept   networks
	anonUID, anonGID       uint32
}

type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func parseExports(o fsconf.ExportOptions) (*exports, error) {
	e := &exports{anonUID: o.AnonUID, anonGID: o.AnonGID}
	for _, x := range []struct {
		to   *networks
		from []string
	}{
		{&e.readOnly, o.ReadOnly},
		{&e.rootSquash, o.RootSquash}, {&e.rootExcept, o.RootSquashExceptions},
		{&e.allSquash, o.AllSquash}, {&e.allExcept, o.AllSquashExceptions},
	} {
		for _, s := range x.from {
			p, err := parseNetwork(s)
			if err != nil {
				return nil, fmt.Errorf("ExportOptions: %w", err)
			}
			*x.to = append(*x.to, p)
		}
	}
	return e, nil
}

// parseNetwork reads tcp://ADDRESS or tcp://ADDRESS@BITS.
func parseNetwork(s string) (netip.Prefix, error) {
	rest, ok := strings.CutPrefix(s, "tcp://")
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%q is not tcp://ADDRESS[@BITS]", s)
	}
	host, bits, masked := strings.Cut(rest, "@")
	if masked {
		return netip.ParsePrefix(host + "/" + bits)
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// access is what a client of one address is restricted to.
type access struct {
	readOnly   bool
	squashRoot bool
	squashAll  bool
	uid, gid   uint32 // of those who are squashed
}

func (e *exports) accessOf(addr net.Addr) access {
	var a netip.Addr
	if tcp, ok := addr.(*net.TCPAddr); ok {
		a = tcp.AddrPort().Addr().Unmap()
	}
	return access{
		readOnly:   e.readOnly.contain(a),
		squashRoot: e.rootSquash.contain(a) && !e.rootExcept.contain(a),
		squashAll:  e.allSquash.contain(a) && !e.allExcept.contain(a),
		uid:        e.anonUID, gid: e.anonGID,
	}
}

// apply refuses a request that changes something for a read-only client, and
// makes a squashed one anonymous.
func (a *access) apply(body wire.Request) error {
	if a.readOnly && changes(body) {
		return errno.Wrap("pvfsd.export", syscall.EROFS, errors.New("the client may only read"))
	}
	cred, attr := credentialOf(body)
	if cred == nil || !a.squashAll && !(a.squashRoot && cred.UID == 0) {
		return nil
	}
	cred.UID, cred.Groups = a.uid, []uint32{a.gid}
	if attr != nil {
		attr.UID, attr.GID = a.uid, a.gid
	}
	return nil
}

// changes reports whether a request can change anything that is kept.
func changes(body wire.Request) bool {
	switch req := body.(type) {
	case *wire.IOReq:
		return req.Dir == wire.IOWrite
	case *wire.SmallIOReq:
		return req.Dir == wire.IOWrite
	case *wire.CreateReq, *wire.MkdirReq, *wire.RemoveReq, *wire.SetAttrReq, *wire.CrDirentReq, *wire.RmDirentReq,
		*wire.ChDirentReq, *wire.TruncateReq, *wire.SetEattrReq, *wire.DelEattrReq, *wire.BatchCreateReq,
		*wire.BatchRemoveReq, *wire.UnstuffReq, *wire.TreeRemoveReq, *wire.TreeSetAttrReq, *wire.RemoveObjectReq,
		*wire.RemoveDirentReq, *wire.AtomicEattrReq, *wire.SplitDirentReq:
		return true
	}
	return false
}

// credentialOf is who makes a request, nil if it does not say, and the
// attributes of what it makes, nil if it makes nothing.
func credentialOf(body wire.Request) (*wire.Credential, *wire.Attr) {
	switch req := body.(type) {
	case *wire.CreateReq:
		return &req.Cred, &req.Attr
	case *wire.MkdirReq:
		return &req.Cred, &req.Attr
	case *wire.GetAttrReq:
		return &req.Cred, nil
	case *wire.SetAttrReq:
		return &req.Cred, nil
	case *wire.LookupPathReq:
		return &req.Cred, nil
	case *wire.CrDirentReq:
		return &req.Cred, nil
	case *wire.RemoveReq:
		return &req.Cred, nil
	case *wire.UnstuffReq:
		return &req.Cred, nil
	case *wire.TreeRemoveReq:
		return &req.Cred, nil
	case *wire.TreeSetAttrReq:
		return &req.Cred, nil
	case *wire.TreeGetAttrReq:
		return &req.Cred, nil
	case *wire.TreeGetFileSizeReq:
		return &req.Cred, nil
	}
	return nil, nil
}
