package cli

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/purge"
)

func documented(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryCommandIsDocumented(t *testing.T) {
	text := documented(t)
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			for _, sub := range cmd.Commands() {
				each(sub)
			}
		}
		path := strings.TrimPrefix(cmd.CommandPath(), "confine ")
		if cmd.Runnable() && path != "confine" && path != "rollout" && path != "node" &&
			!strings.Contains(text, "`"+path+" ") && !strings.Contains(text, "`"+path+"`") {
			t.Errorf("docs/cli.md lacks `%s`", path)
		}
	}
	each((&app{}).root("confine"))
}

// TestOutputForProgramsIsDocumented holds the names of JSON fields: one that is
// renamed would break who reads them.
func TestOutputForProgramsIsDocumented(t *testing.T) {
	text := documented(t)
	section := text[strings.Index(text, "### Output for programs"):strings.Index(text, "### As a plugin of kubectl")]
	for command, types := range map[string][]reflect.Type{
		"| `status` ":         {reflect.TypeFor[fleet.Profile]()},
		"| `status PROFILE` ": {reflect.TypeFor[fleet.Share]()},
		"| `status nodes` ":   {reflect.TypeFor[fleet.Node]()},
		"| `rollout status` ": {reflect.TypeFor[fleet.Progress]()},
		"| `why` ":            {reflect.TypeFor[fleet.Chain](), reflect.TypeFor[fleet.Step]()},
		"| `node purge` ":     {reflect.TypeFor[purged](), reflect.TypeFor[purge.Plan](), reflect.TypeFor[purge.Entry]()},
	} {
		_, row, ok := strings.Cut(section, command)
		if !ok {
			t.Errorf("no row for %s", command)
			continue
		}
		row, _, _ = strings.Cut(row, "\n")
		for _, typ := range types {
			for i := range typ.NumField() {
				name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
				if name != "" && !strings.Contains(row, "`"+name+"`") {
					t.Errorf("%s lacks `%s`", command, name)
				}
			}
		}
	}
}
