"""What stands behind a client, how it is asked and what its errors mean."""
