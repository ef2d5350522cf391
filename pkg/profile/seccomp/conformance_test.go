package seccomp_test

import (
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

const (
	tight = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
  "syscalls":[{"names":["read","write","execve","exit_group"],"action":"SCMP_ACT_ALLOW"}]}`
	mounting = `{"defaultAction":"SCMP_ACT_KILL_PROCESS","defaultErrnoRet":null,"architectures":["SCMP_ARCH_AARCH64"],
  "syscalls":[{"names":["read","mount"],"action":"SCMP_ACT_ALLOW","args":[]}]}`
	everything = `{
  "defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 38,
  "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
  "listenerPath": "/run/agent.sock", "listenerMetadata": "x",
  "syscalls": [
    {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4294967295, "args": [
      {"index": 0, "value": 18446744073709551615, "valueTwo": 18446744073709551615, "op": "SCMP_CMP_MASKED_EQ"},
      {"index": 5, "value": 0, "op": "SCMP_CMP_GE"}, {"index": 5, "value": 7, "op": "SCMP_CMP_LT"}]},
    {"names": ["raed", "read"], "action": "SCMP_ACT_NOTIFY"}]}`
	open = `{"defaultAction":"SCMP_ACT_ALLOW","flags":[],"syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}`
)

// deep nests lists below a field.
func deep(n int) string {
	return `{"syscalls":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
}

func badPayloads() map[string]profiletest.Payload {
	return map[string]profiletest.Payload{
		"no default action":        {Data: `{"syscalls":[]}`, Position: "1:1"},
		"an empty object":          {Data: "\n  {}", Position: "2:3"},
		"default action null":      {Data: `{"defaultAction":null}`, Position: "1:18"},
		"default action empty":     {Data: `{"defaultAction":""}`, Position: "1:18"},
		"action in another case":   {Data: `{"defaultAction":"scmp_act_errno"}`, Position: "1:18"},
		"field in another case":    {Data: "{\n\"DefaultAction\":\"SCMP_ACT_ERRNO\"}", Position: "2:1"},
		"field with a long s":      {Data: `{"defaultAction":"SCMP_ACT_ERRNO","ſyscalls":[]}`, Position: "1:35"},
		"field twice":              {Data: `{"defaultAction":"SCMP_ACT_ERRNO","defaultAction":"SCMP_ACT_ALLOW"}`, Position: "1:35"},
		"field twice by escape":    {Data: `{"defaultAction":"SCMP_ACT_ERRNO","\u0064efaultAction":"SCMP_ACT_ALLOW"}`, Position: "1:35"},
		"field twice, cases":       {Data: `{"defaultAction":"SCMP_ACT_ERRNO","defaultaction":"SCMP_ACT_ALLOW"}`, Position: "1:35"},
		"an unknown field":         {Data: `{"defaultAction":"SCMP_ACT_ERRNO","x":1}`, Position: "1:35"},
		"moby's archMap":           {Data: `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[]}`, Position: "1:35"},
		"moby's includes":          {Data: entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{}`), Position: "1:91"},
		"moby's name":              {Data: entry(`"name":"read","action":"SCMP_ACT_ALLOW"`), Position: "1:48"},
		"no names":                 {Data: entry(`"names":[],"action":"SCMP_ACT_ALLOW"`), Position: "1:47"},
		"names absent":             {Data: entry(`"action":"SCMP_ACT_ALLOW"`), Position: "1:47"},
		"action absent":            {Data: entry(`"names":["read"]`), Position: "1:47"},
		"an empty name":            {Data: entry(`"names":[""],"action":"SCMP_ACT_ALLOW"`), Position: "1:57"},
		"a name in another case":   {Data: entry(`"names":["Clone"],"action":"SCMP_ACT_ALLOW"`), Position: "1:57"},
		"a name with a space":      {Data: entry(`"names":["read "],"action":"SCMP_ACT_ALLOW"`), Position: "1:57"},
		"a name with NUL":          {Data: entry(`"names":["read\u0000"],"action":"SCMP_ACT_ALLOW"`), Position: "1:57"},
		"a long name":              {Data: entry(`"names":["` + strings.Repeat("a", 65) + `"],"action":"SCMP_ACT_ALLOW"`), Position: "1:57"},
		"names a string":           {Data: entry(`"names":"read","action":"SCMP_ACT_ALLOW"`), Position: "1:56"},
		"an entry null":            {Data: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[null]}`, Position: "1:47"},
		"errno on ALLOW":           {Data: entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","errnoRet":1`), Position: "1:102"},
		"default errno on KILL":    {Data: `{"defaultAction":"SCMP_ACT_KILL","defaultErrnoRet":1}`, Position: "1:52"},
		"errno negative":           {Data: entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":-1`), Position: "1:102"},
		"errno too large":          {Data: entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4294967296`), Position: "1:102"},
		"errno a string":           {Data: entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":"1"`), Position: "1:102"},
		"index 6":                  {Data: entry(arg(`"index":6,"value":0,"op":"SCMP_CMP_EQ"`)), Position: "1:108"},
		"index overflows":          {Data: entry(arg(`"index":4294967296,"value":0,"op":"SCMP_CMP_EQ"`)), Position: "1:108"},
		"value overflows":          {Data: entry(arg(`"index":0,"value":18446744073709551616,"op":"SCMP_CMP_EQ"`)), Position: "1:118"},
		"value with a fraction":    {Data: entry(arg(`"index":0,"value":1.0,"op":"SCMP_CMP_EQ"`)), Position: "1:118"},
		"value with an exponent":   {Data: entry(arg(`"index":0,"value":1e2,"op":"SCMP_CMP_EQ"`)), Position: "1:118"},
		"value negative zero":      {Data: entry(arg(`"index":0,"value":-0,"op":"SCMP_CMP_EQ"`)), Position: "1:118"},
		"value null":               {Data: entry(arg(`"index":0,"value":null,"op":"SCMP_CMP_EQ"`)), Position: "1:118"},
		"value absent":             {Data: entry(arg(`"index":0,"op":"SCMP_CMP_EQ"`)), Position: "1:99"},
		"op unknown":               {Data: entry(arg(`"index":0,"value":1,"op":"SCMP_CMP_BITS"`)), Position: "1:125"},
		"an unknown architecture":  {Data: `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}`, Position: "1:52"},
		"an unknown flag":          {Data: `{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, Position: "1:44"},
		"metadata without path":    {Data: `{"defaultAction":"SCMP_ACT_ERRNO","listenerMetadata":"x"}`, Position: "1:54"},
		"half a surrogate pair":    {Data: `{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"\ud800"}`, Position: "1:50"},
		"bytes after the document": {Data: tight + " {}", Position: "2:92"},
		"a comma too many":         {Data: `{"defaultAction":"SCMP_ACT_ERRNO",}`, Position: "1:35"},
		"a comma too few":          {Data: `{"syscalls":[1 2]}`, Position: "1:16"},
		"a raw newline in a text":  {Data: "{\"defaultAction\":\"SCMP\n\"}", Position: "1:23"},
		"deep lists":               {Data: deep(1 << 12), Position: "1:20"},
		"too many entries":         {Data: entries(129), Position: "1:46"},
		"too many names":           {Data: entry(`"names":["a"` + strings.Repeat(`,"a"`, 2048) + `],"action":"SCMP_ACT_ALLOW"`), Position: "1:56"},
		"too many args":            {Data: entry(arg(strings.Repeat(`"index":0,"value":0,"op":"SCMP_CMP_EQ"},{`, 33) + `"index":0`)), Position: "1:98"},
		"a list":                   {Data: `[]`, Position: "1:1"},
		"not JSON":                 {Data: `profile x {}`, Position: "1:1"},
	}
}

func entry(body string) string {
	return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{` + body + `}]}`
}

func arg(body string) string {
	return `"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{` + body + `}]`
}

func entries(n int) string {
	return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}` +
		strings.Repeat(`,{"names":["read"],"action":"SCMP_ACT_ALLOW"}`, n-1) + `]}`
}

func TestConformance(t *testing.T) {
	profiletest.RunKind(t, seccomp.New(seccomp.Options{}), profiletest.KindCase{
		Others: []profile.Kind{apparmor.NewKind(), selinux.NewKind()},
		Good: map[string]profiletest.Payload{
			"tight": {Data: tight}, "mounting": {Data: mounting}, "everything": {Data: everything}, "open": {Data: open},
			"128 entries": {Data: entries(128)},
		},
		Bad:  badPayloads(),
		Safe: "tight", Unsafe: "mounting",
	})
}

func TestTheAdviceForADialectNamesFlatten(t *testing.T) {
	for _, field := range []string{"archMap", "includes", "excludes", "minKernel", "name", "comment"} {
		_, err := seccomp.Parse("p.json", []byte(entry(`"`+field+`":{}`)))
		if err == nil || !strings.Contains(err.Error(), "confine push --flatten") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestMarshalIsTheInverseOfParse(t *testing.T) {
	for name, data := range map[string]string{"tight": tight, "mounting": mounting, "everything": everything, "open": open} {
		t.Run(name, func(t *testing.T) { roundTrip(t, []byte(data)) })
	}
}
