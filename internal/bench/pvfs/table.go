package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// result is what was measured of a variant on a site.
type result struct {
	variant, site string
	rates         []float64
}

// measureAll prints the table of rates.
func (c *config) measureAll(ctx context.Context, sites []*site, out io.Writer) error {
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "workload\tclient\tmedian\tleast\tmost\tx C client\tx real")
	for _, w := range workloads() {
		var results []*result
		for _, s := range sites {
			for _, v := range w.variants {
				absent := v == tools && c.ctools == "" || v == clib && c.cprog == "" || v == fuse && s.fuse == ""
				if !absent && c.only.MatchString(w.name+"/"+v+"@"+s.name) {
					results = append(results, &result{variant: v, site: s.name})
				}
			}
		}
		for range c.rounds {
			for i, r := range results {
				s := sites[slices.IndexFunc(sites, func(s *site) bool { return s.name == r.site })]
				n, took, err := w.run(ctx, c, s, r.variant)
				if err != nil {
					return fmt.Errorf("%s, %s@%s: %w", w.name, r.variant, r.site, err)
				}
				results[i].rates = append(r.rates, n/took.Seconds())
			}
		}
		printRates(tab, w, results)
	}
	return tab.Flush()
}

// peers says which C client each of ours is compared with.
var peers = map[string][]string{ours: {tools, clib}, apart: {clib}, mount: {fuse}, mountCommit: {fuse}}

// printRates prints the rows of a workload: medians, and their ratios to the C
// client on the same servers and to the same client on the real ones.
func printRates(tab io.Writer, w workload, results []*result) {
	ratio := func(of *result, variant, site string) string {
		for _, r := range results {
			if r.variant == variant && r.site == site && r != of {
				return fmt.Sprintf("%.2f", program.Median(of.rates)/program.Median(r.rates))
			}
		}
		return "-"
	}
	for _, r := range results {
		theirs := "-"
		for _, v := range peers[r.variant] {
			if theirs == "-" {
				theirs = ratio(r, v, r.site)
			}
		}
		fmt.Fprintf(tab, "%s\t%s@%s\t%.0f %s\t%.0f\t%.0f\t%s\t%s\n", w.name, r.variant, r.site, program.Median(r.rates), w.unit,
			slices.Min(r.rates), slices.Max(r.rates), theirs, ratio(r, r.variant, "real"))
	}
}
