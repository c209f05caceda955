// Program loopback uses a stack without HTTP. A test looks at what its linker has put into it.
package main

import (
	"fmt"
	"io"
	"log"

	"bsdnet"
)

func main() {
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	ln, err := s.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	c, err := s.Dial("tcp", "127.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(c)
	fmt.Println(string(b), err)
}
