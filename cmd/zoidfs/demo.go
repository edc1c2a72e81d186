package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/nodens"
)

// The job that the demonstration runs.
const (
	demoRanks = 8
	demoBlock = 4 << 10 // bytes of one pwrite
	demoName  = "demo/checkpoint"
)

// demoFlags say where the demonstration takes place and how large it is.
type demoFlags struct {
	dir string
	mib int // of the checkpoint
}

// blocks is the number of pwrite calls.
func (f demoFlags) blocks() int64 { return int64(f.mib) << 20 / demoBlock }

// demoCommand is what `make run` shows: the main job, end to end.
func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:    "demo [--dir DIR] [--mib N]",
		Short:  "start a system and show what it is for",
		Hidden: true,
		Long: "demo starts a system, or uses the one that runs in DIR, and runs a job on it: 8 ranks on two nodes write one shared\n" +
			"checkpoint with interleaved writes of 4 KiB, and every node reads it back.",
		Example: "  zoidfs demo --dir zoidfs-run",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.mib < 1 {
				return fmt.Errorf("--mib %d is not at least 1", f.mib)
			}
			return a.demo(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", defaultDir, "`DIR` of the system")
	cmd.Flags().IntVar(&f.mib, "mib", 64, "size of the checkpoint in MiB")
	cmd.AddCommand(a.demoRankCommand())
	return cmd
}

func (a *app) demo(ctx context.Context, flags demoFlags) error {
	if err := a.up(ctx, upFlags{dir: flags.dir, timeout: time.Minute}); err != nil {
		return err
	}
	_, f, err := loadSystem(flags.dir)
	if err != nil {
		return err
	}
	file := filepath.Join(f.Nodes[0].Mount, demoName)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Fprintf(a.out, "\n%d ranks on %d nodes write %s to %s, rank r the blocks r, r+%d, r+%d ... of 4 KiB:\n",
		demoRanks, len(f.Nodes), counters.Bytes(uint64(flags.mib)<<20), filepath.Join(nodens.Target, demoName), demoRanks, 2*demoRanks)
	before, err := stored(f)
	if err != nil {
		return err
	}
	if _, err := local.SystemStats(ctx, f, true); err != nil {
		return err
	}
	took, err := a.demoJob(ctx, flags.dir, demoRanks, "write", strconv.FormatInt(flags.blocks(), 10))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "  %.1f s, %.0f writes/s, %.1f MiB/s\n", took.Seconds(), float64(flags.blocks())/took.Seconds(), float64(flags.mib)/took.Seconds())
	stats, err := local.SystemStats(ctx, f, false)
	if err != nil {
		return err
	}

	sum := sha256.New()
	for b := range flags.blocks() {
		sum.Write(demoContent(b))
	}
	want := fmt.Sprintf("%x", sum.Sum(nil))
	fmt.Fprintf(a.out, "\nevery node reads the whole file back; written was sha256 %s\n", want)
	if _, err := a.demoJob(ctx, flags.dir, len(f.Nodes), "read", want); err != nil {
		return err
	}
	if err := a.demoLayout(f, before); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\ncalls of the writing job and what became of them:\n")
	if err := stats.Table(a.out); err != nil {
		return err
	}
	a.demoNext(flags.dir, f)
	return nil
}

// demoJob launches ranks of `zoidfs demo rank` and returns how long they took.
func (a *app) demoJob(ctx context.Context, dir string, ranks int, args ...string) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	code, err := a.launch(ctx, launchFlags{dir: dir, ranks: ranks, grace: 5 * time.Second}, append([]string{self, "demo", "rank"}, args...))
	if err == nil && code != 0 {
		err = &exitError{code: code} // the rank has said why
	}
	return time.Since(start), err
}

// stored returns how many bytes each embedded server stores.
func stored(f *cluster.File) ([]int64, error) {
	out := make([]int64, len(f.PVFSD))
	for i, srv := range f.PVFSD {
		err := filepath.WalkDir(filepath.Join(srv.Data, "data"), func(_ string, e iofs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			st, err := e.Info()
			if errors.Is(err, iofs.ErrNotExist) {
				return nil // removed just now
			}
			if err == nil {
				out[i] += st.Size()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// demoLayout prints what the servers store more than before.
func (a *app) demoLayout(f *cluster.File, before []int64) error {
	now, err := stored(f)
	if err != nil || len(now) == 0 {
		return err
	}
	fmt.Fprintf(a.out, "\nhow the bytes lie on the servers:\n")
	tw := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for i, srv := range f.PVFSD {
		fmt.Fprintf(tw, "  %s\t%d bytes\tin %s\n", srv.Alias, now[i]-before[i], srv.Data)
	}
	return tw.Flush()
}

// demoNext says what to try on the system that is left running.
func (a *app) demoNext(dir string, f *cluster.File) {
	self, err := os.Executable()
	if err == nil {
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, self); err == nil && !strings.HasPrefix(rel, "..") {
				self = rel
			}
		}
	} else {
		self = "zoidfs"
	}
	fmt.Fprintf(a.out, "\nThe system stays up. Try:\n"+
		"  cp -a /etc/services %s/ && cat %s/services | head -3\n"+
		"  %s status --dir %s\n"+
		"  %s down --dir %s        # the data stays for the next up\n",
		f.Nodes[0].Mount, f.Nodes[len(f.Nodes)-1].Mount, self, dir, self, dir)
}

// demoRankCommand is the program that the job runs: it knows nothing of
// zoidfs, only a path and its rank.
func (a *app) demoRankCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rank write BLOCKS | read SHA256",
		Short:   "one rank of the demonstration",
		Example: "  zoidfs launch -n 8 -- zoidfs demo rank write 16384",
		RunE: func(_ *cobra.Command, args []string) error {
			rank, err := strconv.Atoi(os.Getenv("ZOIDFS_RANK"))
			if err != nil {
				return errors.New("not a rank of a job: use zoidfs launch")
			}
			size, err := strconv.Atoi(os.Getenv("ZOIDFS_SIZE"))
			if err != nil || size < 1 {
				return errors.New("ZOIDFS_SIZE is not the size of a job")
			}
			name := filepath.Join(nodens.Target, demoName)
			switch {
			case len(args) == 2 && args[0] == "write":
				blocks, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil {
					return err
				}
				return demoWrite(name, rank, size, blocks)
			case len(args) == 2 && args[0] == "read":
				return demoRead(a.out, name, rank, args[1])
			}
			return errors.New("want write BLOCKS, or read SHA256")
		},
	}
}

// demoContent is what block b of the checkpoint holds.
func demoContent(b int64) []byte {
	var seed [32]byte
	copy(seed[:], "zoidfs checkpoint "+strconv.FormatInt(b, 10))
	block := make([]byte, demoBlock)
	_, _ = rand.NewChaCha8(seed).Read(block) // never fails
	return block
}

func demoWrite(name string, rank, size int, blocks int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	for b := int64(rank); b < blocks; b += int64(size) {
		if _, err := f.WriteAt(demoContent(b), b*demoBlock); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

func demoRead(out io.Writer, name string, node int, want string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	start := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	took := time.Since(start)
	got := fmt.Sprintf("%x", sum.Sum(nil))
	if got != want {
		return fmt.Errorf("node%d reads %d bytes with sha256 %s", node, n, got)
	}
	fmt.Fprintf(out, "  node%d reads the same, %d bytes at %.0f MiB/s\n", node, n, float64(n)/took.Seconds()/(1<<20))
	return nil
}
