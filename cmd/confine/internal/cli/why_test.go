package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
)

func TestHowAChainIsPrinted(t *testing.T) {
	chain := fleet.Chain{
		Profile: "web/nginx", Node: "node-1", Digest: hexDigest("b"), Mark: fleet.Stuck, At: fleet.LinkVerdict, Message: "Revoked: by base\x1b[2J", Advice: "pin a newer digest",
		Steps: []fleet.Step{
			{Link: fleet.LinkProfile, Mark: fleet.OK, Message: "pinned", Advice: "never shown"},
			{Link: fleet.LinkTrust, Mark: fleet.Unknown, Message: "you may not look", Advice: "ask for the role"},
			{Link: fleet.LinkAgent, Mark: fleet.Wait, Message: "it starts; look at its log", Advice: "look at its log"},
			{Link: fleet.LinkVerdict, Mark: fleet.Stuck, Message: "Revoked: by base\x1b[2J", Advice: "pin a newer digest"},
		},
	}
	const plain = `web/nginx sha256:bbbbbbbbbbbb on node-1
of 2 nodes: 2 Revoked

ok       SecurityProfile  pinned
unknown  trust            you may not look
                          ask for the role
waiting  agent            it starts; look at its log
stuck    verdict          Revoked: by base[2J

stuck at verdict: Revoked: by base[2J
what to do: pin a newer digest
`
	colored := strings.NewReplacer("ok       ", "\x1b[32mok     \x1b[0m  ", "waiting  ", "\x1b[33mwaiting\x1b[0m  ", "stuck    ", "\x1b[31mstuck  \x1b[0m  ").Replace(plain)
	for name, want := range map[string]string{"plain": plain, "colored": colored} {
		var out bytes.Buffer
		a := &app{Streams: Streams{Out: &out, Color: name == "colored"}}
		a.printChain(chain, "of 2 nodes: 2 Revoked")
		if out.String() != want {
			t.Errorf("%s:\n%q\nwant\n%q", name, out.String(), want)
		}
	}
	var out bytes.Buffer
	(&app{Streams: Streams{Out: &out}}).printChain(fleet.Chain{Profile: "web/nginx", Mark: fleet.OK}, "")
	if !strings.Contains(out.String(), "nothing is in the way") {
		t.Error(out.String())
	}
}
