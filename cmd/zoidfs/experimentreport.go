package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/experiment/report"
)

// reportFlags are the flags of experiment report.
type reportFlags struct {
	out, svg, markdown string
	png                bool
}

func (a *app) experimentReportCommand() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report DIR [--out FILE.html] [--svg DIR [--png]] [--markdown FILE.md]",
		Short: "make a page of the results in a directory",
		Long: "report writes one HTML file that needs no network: plots with their tables, what became of requests, how stale reads\n" +
			"were, which promises were kept, and all that one needs to repeat the experiment. With --markdown it brings a document\n" +
			"up to date instead: its tables, which stand between two comments, and the pictures of plots that it shows. A FILE.md\n" +
			"that is not there is made; - prints the tables.",
		Example: "  zoidfs experiment report sessions-results\n" +
			"  zoidfs experiment report sessions-results --svg figures --png    # for a paper\n" +
			"  zoidfs experiment report sessions-results --markdown sessions.md    # for a repository",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one DIR")
			}
			if f.png && f.svg == "" {
				return errors.New("--png: where to? give --svg DIR as well")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.experimentReport(args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "write the page to `FILE` (default: DIR/report.html)")
	flags.StringVar(&f.svg, "svg", "", "also write every plot to `DIR` as SVG")
	flags.StringVar(&f.markdown, "markdown", "", "write tables to, or bring up to date, `FILE.md`, and write no page; -: print tables")
	flags.BoolVar(&f.png, "png", false, "and as PNG of 300 pixels to the inch")
	return cmd
}

func (a *app) experimentReport(dir string, f reportFlags) error {
	r, err := experiment.Open(dir)
	if err != nil {
		return err
	}
	switch f.markdown {
	case "":
		err = a.reportPage(dir, f, r)
	case "-":
		_, err = a.out.Write(report.Markdown(r))
	default:
		err = a.reportDocument(f.markdown, r)
	}
	if err != nil || f.svg == "" {
		return err
	}
	return a.reportFigures(f, r)
}

// reportPage writes the page.
func (a *app) reportPage(dir string, f reportFlags, r *experiment.Results) error {
	if f.out == "" {
		f.out = filepath.Join(dir, "report.html")
	}
	var page bytes.Buffer
	if err := report.Page(&page, r); err != nil {
		return err
	}
	return a.written(f.out, page.Bytes())
}

// reportDocument brings a document and its pictures up to date.
func (a *app) reportDocument(file string, r *experiment.Results) error {
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = report.NewDocument(r), nil
	}
	if err != nil {
		return err
	}
	text, err := report.PutInto(old, r)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	pictures, err := report.Pictures(old, r)
	if err != nil {
		return err
	}
	if err := a.written(file, text); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(pictures)) {
		if err := a.written(filepath.Join(filepath.Dir(file), path), pictures[path]); err != nil {
			return err
		}
	}
	return nil
}

// written writes a file and tells so.
func (a *app) written(file string, b []byte) error {
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(a.out, file)
	return nil
}

// reportFigures writes every plot.
func (a *app) reportFigures(f reportFlags, r *experiment.Results) error {
	figures, err := report.Export(r, f.png)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.svg, 0o755); err != nil {
		return err
	}
	for _, fig := range figures {
		name := filepath.Join(f.svg, fig.Name)
		if err := a.written(name+".svg", fig.SVG); err != nil {
			return err
		}
		if !f.png {
			continue
		}
		if err := a.written(name+".png", fig.PNG); err != nil {
			return err
		}
	}
	return nil
}
