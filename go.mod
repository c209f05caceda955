module bsdnet

go 1.26
