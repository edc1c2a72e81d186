package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// memory of a daemon, as its metrics tell.
type daemonMem struct {
	mallocs, gcs float64
}

func get(ctx context.Context, url string, timeout time.Duration) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: timeout}
	resp, err := client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp, err
}

// daemonMemory asks a daemon for its metrics; zeros if it has none.
func daemonMemory(addr string) (m daemonMem) {
	if addr == "" {
		return m
	}
	resp, err := get(context.Background(), "http://"+addr+"/metrics", 5*time.Second)
	if err != nil {
		return m
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), " ")
		switch name {
		case "go_memstats_mallocs_total":
			m.mallocs, _ = strconv.ParseFloat(value, 64)
		case "go_gc_duration_seconds_count":
			m.gcs, _ = strconv.ParseFloat(value, 64)
		}
	}
	return m
}

// profiles tells where the CPU time of the mount's daemon goes for 1 MiB calls.
func (c *config) profiles(ctx context.Context, ts []*target, out io.Writer) error {
	var w *tabwriter.Writer
	for _, t := range ts {
		for _, wl := range workloads {
			if t.metrics == "" || wl.procs != 1 || wl.bs != 1<<20 || !c.matches(t.name, wl.name) {
				continue
			}
			shares, err := c.profile(ctx, t, wl)
			if err != nil {
				return fmt.Errorf("profile of %s on %s: %w", wl.name, t.name, err)
			}
			if w == nil {
				fmt.Fprintln(out, "\nWhere the mount's daemon spends its CPU time, by the innermost package that is neither runtime nor")
				fmt.Fprintln(out, "system calls; last, all samples under a call into zoidfs from FUSE, sends and waiting included.")
				w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", wl.name, t.name, strings.Join(shares, "\t"))
		}
	}
	if w != nil {
		return w.Flush()
	}
	return nil
}

// profile profiles the daemon of t under a workload.
func (c *config) profile(ctx context.Context, t *target, wl workload) ([]string, error) {
	const seconds = 3
	var path string
	var g errgroup.Group
	g.Go(func() (err error) {
		path, err = fetchProfile(ctx, t.metrics, seconds)
		return err
	})
	g.Go(func() error {
		_, err := measureOnce(t, wl, (seconds+1)*time.Second)
		return err
	})
	err := g.Wait()
	if path != "" {
		defer os.Remove(path)
	}
	if err != nil {
		return nil, err
	}
	text, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", path).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	return shares(string(text)), nil
}

func fetchProfile(ctx context.Context, addr string, seconds int) (string, error) {
	resp, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, seconds), time.Duration(seconds+20)*time.Second)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	f, err := os.CreateTemp("", "zoidfs-bench-*.prof")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, resp.Body)
	if e := f.Close(); err == nil {
		err = e
	}
	return f.Name(), err
}

// owners are the packages that samples are given to, by prefix.
var owners = []struct{ prefix, name string }{
	{"github.com/zoidfs/zoidfs/fs/device", "FUSE"},
	{"github.com/zoidfs/zoidfs/", "zoidfs"},
	{"github.com/hanwen/go-fuse/", "FUSE"},
	{"google.golang.org/grpc", "grpc"},
	{"golang.org/x/net/", "grpc"},
	{"google.golang.org/protobuf", "protobuf"},
}

// traceLine is the first or a further line of a stack in `pprof -traces`.
var traceLine = regexp.MustCompile(`^\s+(?:([\d.]+)(ms|s|us|ns|mins)?\s+)?(\S.*)$`)

// shares sums the samples of `pprof -traces` up by owner.
func shares(text string) []string {
	sum := map[string]float64{}
	var total, under float64
	for _, block := range strings.Split(text, "-----------+")[1:] {
		value, stack := parseTrace(block)
		if value == 0 {
			continue
		}
		total += value
		owner := "runtime"
		for _, frame := range stack {
			if o := ownerOf(frame); o != "" {
				owner = o
				break
			}
		}
		sum[owner] += value
		if calledFromFUSE(stack) {
			under += value
		}
	}
	if total == 0 {
		return []string{"no samples"}
	}
	var out []string
	for _, name := range []string{"zoidfs", "FUSE", "grpc", "protobuf", "runtime"} {
		out = append(out, fmt.Sprintf("%s %.0f %%", name, 100*sum[name]/total))
	}
	return append(out, fmt.Sprintf("under zoidfs %.0f %%", 100*under/total))
}

func ownerOf(frame string) string {
	for _, o := range owners {
		if strings.HasPrefix(frame, o.prefix) {
			return o.name
		}
	}
	return ""
}

// calledFromFUSE reports whether the stack, leaf first, has a frame of ours
// below which FUSE called it.
func calledFromFUSE(stack []string) bool {
	ours := slices.IndexFunc(stack, func(f string) bool { return ownerOf(f) == "zoidfs" })
	return ours >= 0 && slices.ContainsFunc(stack[ours:], func(f string) bool { return ownerOf(f) == "FUSE" })
}

// parseTrace returns the CPU time of one block and its stack, leaf first.
func parseTrace(block string) (ms float64, stack []string) {
	units := map[string]float64{"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3, "mins": 6e4}
	for _, line := range strings.Split(block, "\n")[1:] {
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if m[1] != "" && m[2] != "" {
			v, _ := strconv.ParseFloat(m[1], 64)
			ms += v * units[m[2]]
		}
		stack = append(stack, m[3])
	}
	return ms, stack
}
