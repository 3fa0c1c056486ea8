"""The CDK app of this clone: that of the package."""

from codecommit_mirror.app import main

main()
