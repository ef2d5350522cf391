package version

import (
	"runtime"
	"testing"
)

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		stamped, module, want string
	}{
		"the linker's word comes first":   {stamped: "v1.2.3", module: "v1.0.0", want: "v1.2.3"},
		"go install records the module's": {module: "v1.0.0", want: "v1.0.0"},
		"built in place":                  {module: "(devel)", want: "devel"},
		"nothing known":                   {want: "devel"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := choose(tc.stamped, tc.module); got != tc.want {
				t.Errorf("choose(%q, %q) = %q, want %q", tc.stamped, tc.module, got, tc.want)
			}
		})
	}
}

func TestGet(t *testing.T) {
	got := Get()
	want := Info{Version: String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if got != want {
		t.Errorf("Get() = %+v, want %+v", got, want)
	}
	if got.Version == "" {
		t.Error("the version is never empty")
	}
}
