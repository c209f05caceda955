package main

func main() { isolate() }
