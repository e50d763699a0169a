"""The peers in Python. They share one environment, made from requirements.txt beside them."""
