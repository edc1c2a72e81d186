package pvfs

import (
	"context"
	"slices"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// ListAttr returns the attributes of several objects, in their order, or for
// each the reason why there are none. It asks each server once for up to 60
// objects. Without sizes, those of striped files and the entries of
// directories are left out. The last result is not nil if a server could not
// be reached at all.
func (c *Client) ListAttr(ctx context.Context, hs []Handle, sizes bool) ([]Attr, []error, error) {
	out, errs := make([]Attr, len(hs)), make([]error, len(hs))
	ws, err := c.listattr(ctx, hs, attrMask, errs)
	if err != nil {
		return nil, nil, err
	}
	var parts []part
	for i := range ws {
		if errs[i] != nil {
			continue
		}
		w := &ws[i]
		if out[i], errs[i] = fromWire(hs[i], w); errs[i] != nil {
			continue
		}
		info := c.dirs.put(hs[i], w)
		if l := out[i].Layout; l != nil && !l.Stuffed {
			parts = append(parts, part{i, l.DFiles, wire.AttrSize})
		} else if info != nil {
			parts = append(parts, part{i, info.actives(), dirdataMask})
		}
	}
	if !sizes {
		return out, errs, nil
	}
	for _, mask := range []wire.AttrMask{wire.AttrSize, dirdataMask} {
		if err := c.addParts(ctx, out, errs, parts, mask); err != nil {
			return nil, nil, err
		}
	}
	return out, errs, nil
}

// part is the objects behind one object: datafiles or buckets.
type part struct {
	of      int
	handles []Handle
	mask    wire.AttrMask
}

// addParts adds what the parts of one kind know to the attributes in out.
func (c *Client) addParts(ctx context.Context, out []Attr, errs []error, parts []part, mask wire.AttrMask) error {
	var all []Handle
	for _, p := range parts {
		if p.mask == mask {
			all = append(all, p.handles...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	partErrs := make([]error, len(all))
	ws, err := c.listattr(ctx, all, mask, partErrs)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.mask != mask {
			continue
		}
		n := len(p.handles)
		mine, mineErrs := ws[:n], partErrs[:n]
		ws, partErrs = ws[n:], partErrs[n:]
		if i := slices.IndexFunc(mineErrs, func(e error) bool { return e != nil }); i >= 0 {
			errs[p.of] = mineErrs[i]
			continue
		}
		a := &out[p.of]
		if mask == dirdataMask {
			for i := range mine {
				a.addDirdata(&mine[i])
			}
			continue
		}
		sizes := make([]int64, n)
		for i := range mine {
			sizes[i] = mine[i].Size
		}
		pl, err := newPlacement(a.Layout)
		if err != nil {
			errs[p.of] = err
			continue
		}
		a.Size = pl.dist.Size(sizes)
	}
	return nil
}

// listattr asks the owners of hs for attributes; errs[i] is set where there
// are none for hs[i]. It asks once for a handle that is in hs several times, as
// real servers answer only the first in a request.
func (c *Client) listattr(ctx context.Context, hs []Handle, mask wire.AttrMask, errs []error) ([]wire.Attr, error) {
	out := make([]wire.Attr, len(hs))
	groups := map[*server][]int{}
	first := make(map[Handle]int, len(hs))
	for i, h := range hs {
		if _, again := first[h]; again {
			continue
		}
		first[h] = i
		s, err := c.owner(h)
		if err != nil {
			errs[i] = err
			continue
		}
		groups[s] = append(groups[s], i)
	}
	var fs []func(context.Context) error
	for _, s := range c.order {
		for idx := range slices.Chunk(groups[s], wire.MaxListAttr) {
			fs = append(fs, func(ctx context.Context) error { return s.listattr(ctx, hs, idx, mask, out, errs) })
		}
	}
	if len(fs) > 0 {
		if err := together(ctx, fs...); err != nil {
			return out, err
		}
	}
	for i, h := range hs {
		out[i], errs[i] = out[first[h]], errs[first[h]]
	}
	return out, nil
}

func (s *server) listattr(ctx context.Context, hs []Handle, idx []int, mask wire.AttrMask, out []wire.Attr, errs []error) error {
	req := &wire.ListAttrReq{FSID: s.client.fsid, Mask: mask, Handles: make([]Handle, len(idx))}
	for j, i := range idx {
		req.Handles[j] = hs[i]
	}
	var resp wire.ListAttrResp
	if _, err := s.ask(ctx, req, &resp); err != nil {
		return s.listattrEach(ctx, hs, idx, mask, out, errs, err)
	}
	if len(resp.Attrs) != len(idx) {
		return protocolError("attributes of %d objects instead of %d", len(resp.Attrs), len(idx))
	}
	for j, i := range idx {
		out[i] = resp.Attrs[j]
		errs[i] = resp.Statuses[j].Err("pvfs.listattr")
	}
	return nil
}

// listattrEach is what follows when the server refused LISTATTR altogether, as
// it does when it has none of the objects: it asks for each of them.
func (s *server) listattrEach(ctx context.Context, hs []Handle, idx []int, mask wire.AttrMask, out []wire.Attr, errs []error, err error) error {
	if !refused(err) {
		return err
	}
	if len(idx) == 1 {
		errs[idx[0]] = err
		return nil
	}
	var fs []func(context.Context) error
	for one := range slices.Chunk(idx, 1) {
		fs = append(fs, func(ctx context.Context) error { return s.listattr(ctx, hs, one, mask, out, errs) })
	}
	return together(ctx, fs...)
}
