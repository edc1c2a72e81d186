package ionserver

import (
	"context"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// figures makes the questions how full the file system is into rounds: mounts that
// ask while the servers are being asked get the next answer together.
type figures = round.Group[struct{}, struct{}, pvfs.StatFS]

func newFigures(s *Server) *figures {
	opt := round.Options[struct{}, struct{}]{
		Rounds:  collective.RoundOptions{Hold: collective.HoldOptions{Off: true}},
		Mounts:  true,
		Journal: s.journal,
		Name:    func(struct{}) (string, uint64) { return "statfs", uint64(s.pvfs.Root()) },
	}
	return round.New(opt, func(ctx context.Context, _ struct{}, calls []*round.Call[struct{}, struct{}, pvfs.StatFS]) {
		calls[0].Outcome = collective.Outcome{Requests: len(s.pvfs.Servers()), Fewer: "each server knows of its own space"}
		st, err := s.pvfs.StatFS(ctx)
		for _, c := range calls {
			c.A, c.Err = st, err
		}
	})
}

// statFS answers STATFS.
func (c *call) statFS() (*rpc.Frame, error) {
	var s pvfs.StatFS
	err := c.wait(func() (err error) {
		s, err = c.srv.figures.Do(c.ctx, struct{}{}, c.asMember(), struct{}{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.StatFSResp{
		BlockSize: defaultBlock, Blocks: uint64(s.Total) / defaultBlock,
		BlocksFree: uint64(s.Free) / defaultBlock, BlocksAvail: uint64(s.Free) / defaultBlock,
		Files: s.Handles, FilesFree: s.HandlesFree, NameMax: 255,
	})
}
