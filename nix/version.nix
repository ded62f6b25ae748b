# The version of the manifest. Counted up when a reader of the old one would misread the new one.
1
