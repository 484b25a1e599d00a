"""Amazon SageMaker as a provider: training jobs, on managed spot instances, training plans or on demand."""
