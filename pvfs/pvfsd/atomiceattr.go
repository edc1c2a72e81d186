package pvfsd

import (
	"context"
	"encoding/binary"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// What an ATOMICEATTR does with a value. Source: OrangeFS
// include/pvfs2-usrint.h.
const (
	atomicTestAndSet  = 1     // 0 becomes 1
	atomicSwap        = 2     // becomes the value given
	atomicFetchAndAdd = 0xadd // grows by the value given
)

// atomicEattr changes extended attributes that are there in one step and answers
// with what they were. Numbers are 32 bits, little-endian; a value that is none
// stays as it is. Source: OrangeFS src/server/atomic-eattr.sm.
func (s *Server) atomicEattr(ctx context.Context, hdr *wire.RequestHeader, req *wire.AtomicEattrReq) (*wire.GetEattrResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if err := s.checkEattrCap(hdr, req.Handle); err != nil {
		return nil, err
	}
	names := make([]string, len(req.Keys))
	for i, key := range req.Keys {
		name, err := eattrName(key)
		switch {
		case err != nil:
			return nil, errno.New("pvfsd.atomiceattr", syscall.ENOENT)
		case strings.HasPrefix(name, internalPrefix):
			return nil, errno.New("pvfsd.atomiceattr", syscall.EPERM)
		}
		names[i] = name
	}
	var resp *wire.GetEattrResp
	err := s.changeEattrs(ctx, req.Handle, func(t *txn, o *object) error {
		resp = &wire.GetEattrResp{Values: make([][]byte, len(names)), Statuses: make([]wire.Status, len(names))}
		for i, name := range names {
			old := t.eattr(req.Handle, name)
			switch {
			case old == nil:
				resp.Statuses[i] = statusNoEattr
				continue
			case int64(len(old)) > req.Rooms[i]:
				resp.Statuses[i] = wire.StatusOf(syscall.EMSGSIZE)
				continue
			}
			resp.Values[i] = old
			if v := atomicValue(req.Opcode, old, req.Values[i]); v != nil {
				if err := t.setEattrs(req.Handle, o, names[i:i+1], [][]byte{v}, 0); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(names) == 1 && resp.Statuses[0] != 0:
		return nil, errno.New("pvfsd.atomiceattr", resp.Statuses[0].Errno())
	}
	return resp, nil
}

// atomicValue is what becomes of old; nil leaves it as it is.
func atomicValue(opcode int32, old, given []byte) []byte {
	if opcode == atomicSwap {
		return given
	}
	if len(old) != 4 || len(given) != 4 {
		return nil
	}
	was := binary.LittleEndian.Uint32(old)
	switch {
	case opcode == atomicTestAndSet && was == 0:
		return binary.LittleEndian.AppendUint32(nil, 1)
	case opcode == atomicFetchAndAdd:
		return binary.LittleEndian.AppendUint32(nil, was+binary.LittleEndian.Uint32(given))
	}
	return nil
}
