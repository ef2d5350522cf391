package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputFlag is -o: how a result is printed.
type outputFlag struct {
	format  string
	allowed []string
}

func (o *outputFlag) add(cmd *cobra.Command, more ...string) {
	o.allowed = append([]string{"json", "yaml"}, more...)
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "print as "+alternatives(o.allowed)+" instead of a table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.allowed, cobra.ShellCompDirectiveNoFileComp))
}

func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func (o *outputFlag) check() error {
	if o.format == "" || slices.Contains(o.allowed, o.format) {
		return nil
	}
	return usagef("-o %s: choose one of %s", o.format, strings.Join(o.allowed, ", "))
}

// print writes v as JSON or YAML, or calls table.
func (a *app) print(o outputFlag, v any, table func()) error {
	switch o.format {
	case "json":
		enc := json.NewEncoder(a.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		data, err := yaml.Marshal(v)
		if err != nil {
			return fmt.Errorf("print as YAML: %w", err)
		}
		_, err = a.Out.Write(data)
		return err
	default:
		table()
		return nil
	}
}

// table prints rows in columns; the first row is the header.
func (a *app) table(rows [][]string) {
	w := tabwriter.NewWriter(a.Out, 0, 8, 3, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = oneLine(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

// shortDigest is enough of a digest for a table.
func shortDigest(d string) string {
	const keep = len("sha256:") + 12
	if len(d) <= keep {
		return d
	}
	return d[:keep]
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
