package seccomp_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

// jsonNames are the JSON names of a struct's exported fields.
func jsonNames(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		if tag := field.Tag.Get("json"); tag != "" {
			name, _, _ := strings.Cut(tag, ",")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTheModelIsThatOfTheSpecification(t *testing.T) {
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[specs.LinuxSeccomp](), reflect.TypeFor[seccomp.Profile]()},
		{reflect.TypeFor[specs.LinuxSyscall](), reflect.TypeFor[seccomp.Syscall]()},
		{reflect.TypeFor[specs.LinuxSeccompArg](), reflect.TypeFor[seccomp.Arg]()},
	} {
		if diff := cmp.Diff(jsonNames(pair[0]), jsonNames(pair[1])); diff != "" {
			t.Errorf("fields of %s (-specification +ours):\n%s", pair[0], diff)
		}
	}
}

// TestRuntimesReadTheSame hands a profile to the specification's own types, as
// containerd does: what it reads must be what we read.
func TestRuntimesReadTheSame(t *testing.T) {
	p, err := seccomp.Parse("p.json", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	var want, got specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(everything), &want); err != nil {
		t.Fatal(err)
	}
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-runtime's reading +after ours):\n%s", diff)
	}
}
