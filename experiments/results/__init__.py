"""Many runs over many seeds, and the tables and pictures made of them."""
