package ionserver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// viewXattr of the root directory holds the settled view.
const viewXattr = "user.zoidfs.view"

// maxClaims bounds how many claims are followed from the settled view.
const maxClaims = 1 << 16

func claimName(epoch uint64) string { return "view." + strconv.FormatUint(epoch, 10) }

// settledView reads the view that was last published; epoch 0 if none was.
func (s *Server) settledView(ctx context.Context) (view, error) {
	b, err := s.pvfs.GetXattr(ctx, s.pvfs.Root(), viewXattr)
	if errno.Of(err) == syscall.ENODATA {
		return view{}, nil
	}
	if err != nil {
		return view{}, err
	}
	return parseView(string(b))
}

// claimOf reads the claim of an epoch; epoch 0 if it was not claimed.
func (s *Server) claimOf(ctx context.Context, epoch uint64) (view, error) {
	h, err := s.pvfs.Lookup(ctx, pvfs.Handle(s.orphanDir), claimName(epoch))
	if errno.Of(err) == syscall.ENOENT {
		return view{}, nil
	}
	if err != nil {
		return view{}, err
	}
	a, err := s.pvfs.GetAttr(ctx, h)
	if err != nil {
		return view{}, err
	}
	v, err := parseView(a.Target)
	if err == nil && v.epoch != epoch {
		err = fmt.Errorf("claim %s says %q", claimName(epoch), a.Target)
	}
	return v, err
}

// newestClaim follows the claims after epoch.
func (s *Server) newestClaim(ctx context.Context, epoch uint64) (newest view, err error) {
	for range maxClaims {
		v, err := s.claimOf(ctx, epoch+1)
		if err != nil || v.epoch == 0 {
			return newest, err
		}
		newest, epoch = v, v.epoch
	}
	return view{}, errors.New("too many claims")
}

// establishView finds the epoch under which this node serves, claiming one for
// its list of peers if the newest is not of the same list. An entry in a
// directory is made once only, so an epoch belongs to one list.
func (s *Server) establishView(ctx context.Context) error {
	ours := view{members: s.opt.Peers, domainSize: s.opt.DomainSize}
	for {
		settled, err := s.settledView(ctx)
		if err != nil {
			return err
		}
		claim, err := s.newestClaim(ctx, settled.epoch)
		if err != nil {
			return err
		}
		step, epoch := decideView(settled, claim, ours)
		ours.epoch = epoch
		switch step {
		case viewServe:
			began := time.Now()
			if newer, err := s.claimOf(ctx, epoch+1); err != nil {
				return err
			} else if newer.epoch == 0 {
				s.epoch = epoch
				s.guard.Seen(began)
				return nil
			}
		case viewClaim:
			if err := s.awaitOthers(ctx, ours); err != nil {
				return err
			}
			s.log.Info("claiming a view", "epoch", epoch, "members", ours.members, "before", settled.String())
			_, err = s.pvfs.Symlink(ctx, pvfs.Handle(s.orphanDir), claimName(epoch), ours.String(), 0, 0)
			if err != nil && errno.Of(err) != syscall.EEXIST {
				return err
			}
		case viewSettle:
			if err := s.settleView(ctx, ours); err != nil {
				return err
			}
		}
	}
}

// servingPrefix begins the entries, in the directory of orphans, of those who
// serve or are about to: symbolic links to their list.
const servingPrefix = "serving."

// markServing tells that this node may be serving its list. It is called
// before the look for newer claims that lets the node serve; who claims looks
// for marks after claiming. So one of two sees the other.
func (s *Server) markServing(ctx context.Context) error {
	ours := view{members: s.opt.Peers, domainSize: s.opt.DomainSize}
	name := servingPrefix + s.opt.Self
	s.removeLeftover(ctx, name) // of an earlier life, perhaps with another list
	_, err := s.pvfs.Symlink(ctx, pvfs.Handle(s.orphanDir), name, ours.String(), 0, 0)
	return err
}

// unmarkServing is called when the node serves nobody any more.
func (s *Server) unmarkServing(ctx context.Context) {
	s.removeLeftover(ctx, servingPrefix+s.opt.Self)
}

// others are the addresses of nodes with another list that may be serving. Those
// that crashed count too.
func (s *Server) others(ctx context.Context, ours view) (addrs []string, err error) {
	marks := make(map[string]pvfs.Handle)
	err = s.eachLeftover(ctx, func(e pvfs.Dirent) {
		if addr, ok := strings.CutPrefix(e.Name, servingPrefix); ok && addr != s.opt.Self {
			marks[addr] = e.Handle
		}
	})
	if err != nil {
		return nil, err
	}
	for addr, h := range marks {
		a, err := s.pvfs.GetAttr(ctx, h)
		if errno.Of(err) == syscall.ENOENT {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if v, err := parseView(a.Target); err != nil || !v.sameNodes(ours) {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// awaitOthers refuses to take over from nodes that serve another list, unless that
// is wished: such a start is a mistake as a rule, and would stop all of them. Those that
// are just ending are waited for.
func (s *Server) awaitOthers(ctx context.Context, ours view) error {
	for began := time.Now(); !s.opt.TakeOver; {
		addrs, err := s.others(ctx, ours)
		if err != nil {
			return err
		}
		serving := s.firstServing(ctx, addrs, ours)
		if serving == nil {
			return nil
		}
		if time.Since(began) >= 3*s.opt.ViewInterval {
			return fmt.Errorf("the I/O node %s serves with the list %v, which is another than ours, %v: start with that list, or stop those nodes first",
				serving.Address, serving.View.GetMembers(), ours.members)
		}
		select {
		case <-time.After(s.opt.ViewInterval / 4):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// firstServing asks the nodes at addrs, and returns the answer of one that serves
// another list; nil if there is none.
func (s *Server) firstServing(ctx context.Context, addrs []string, ours view) *ionpb.StatusResp {
	ctx, cancel := context.WithTimeout(ctx, 2*pingTimeout)
	defer cancel()
	answers := make([]*ionpb.StatusResp, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			r, err := rpc.Status(ctx, addr, rpc.Options{})
			if err == nil && r.Refusing == "" && !viewOf(r.View).sameNodes(ours) {
				answers[i] = r
			}
		})
	}
	wg.Wait()
	for _, r := range answers {
		if r != nil {
			return r
		}
	}
	return nil
}

// settleView waits until nobody can be serving under an older view, and
// publishes this one. Nobody serves before the first.
func (s *Server) settleView(ctx context.Context, v view) error {
	others, err := s.others(ctx, v)
	if err != nil {
		return err
	}
	if v.epoch > 1 && len(others) > 0 {
		s.log.Info("waiting for the end of the view before", "epoch", v.epoch)
		select {
		case <-time.After(3 * s.opt.ViewInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	newer, err := s.claimOf(ctx, v.epoch+1)
	if err != nil || newer.epoch != 0 {
		return err
	}
	return s.pvfs.SetXattr(ctx, s.pvfs.Root(), viewXattr, []byte(v.String()), 0)
}

// watchView looks for newer claims until ctx ends or this node's view is over.
func (s *Server) watchView(ctx context.Context) error {
	tick := time.NewTicker(s.opt.ViewInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		began := time.Now()
		newer, err := s.claimOf(ctx, s.epoch+1)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Warn("cannot look for a newer view", "err", err)
		case newer.epoch != 0:
			s.log.Error("serving no more: I/O nodes with another list have taken over; restart with theirs",
				"epoch", newer.epoch, "members", newer.members, "ours", s.opt.Peers)
			s.guard.Refuse(fmt.Errorf("epoch %d of %v has taken over", newer.epoch, newer.members))
			return nil
		default:
			s.guard.Seen(began)
		}
	}
}
