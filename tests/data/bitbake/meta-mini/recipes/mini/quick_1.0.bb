SUMMARY = "Builds at once"
