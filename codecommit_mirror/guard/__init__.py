"""The guard: what AWS keeps and watches of every replica, out of the pipeline's reach.

It runs as one Lambda function for an account and region, beside the engine's modules and the runtime's boto3. It finds
the replicas by their tags, keeps snapshots of them in a bucket with Object Lock, and notifies people of changes that
no run made, and of replicas that no run confirms. The CLI reads the same snapshots.
"""
