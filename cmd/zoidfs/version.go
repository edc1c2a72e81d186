package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version names the source that the binary was built from.
var version = "unknown" // set by the linker, see the Makefile

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Example: "  zoidfs version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "zoidfs %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
