package wireguard_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"bsdnet"
	"bsdnet/wireguard"
)

// A server and its client, each with a file of wg-quick. Normally they are on different hosts.
func Example() {
	server, err := join(`
		[Interface]
		PrivateKey = KBbF3rJhSNVDRQ2CBrPgzLxkWbECJULAX+4ox7KJiFw=
		Address = 10.7.0.1/24
		ListenPort = 51871
		[Peer]
		PublicKey = HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
		AllowedIPs = 10.7.0.2/32`)
	if err != nil {
		panic(err)
	}
	defer server.Close()
	ln, err := server.Listen("tcp", ":80")
	if err != nil {
		panic(err)
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello through the tunnel")
	}))

	client, err := join(`
		[Interface]
		PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
		Address = 10.7.0.2/24
		[Peer]
		PublicKey = vhGE6TI96Gz3QTl8BF0xOurh3umEv8PCEDYwrpkjtSk=
		Endpoint = 127.0.0.1:51871
		AllowedIPs = 0.0.0.0/0`)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	resp, err := client.HTTPClient().Get("http://10.7.0.1/")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello through the tunnel <nil>
}

// join makes a stack and attaches it to the WireGuard network of a configuration.
func join(config string) (*bsdnet.Stack, error) {
	cfg, err := wireguard.Parse(strings.NewReader(config)) // or ParseFile("wg0.conf")
	if err != nil {
		return nil, err
	}
	stack, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		return nil, err
	}
	link, err := wireguard.Open(cfg)
	if err != nil {
		return nil, err
	}
	return stack, link.AttachTo(stack)
}
